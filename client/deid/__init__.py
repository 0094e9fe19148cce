"""De-identification by default deny: what nobody decided about is removed."""
