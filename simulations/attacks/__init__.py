"""The privacy audit: what an attacker gets out of the very code that hospitals run, with and without protection."""
