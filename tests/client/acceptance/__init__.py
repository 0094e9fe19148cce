"""The acceptance corpus of de-identification: one nasty file of each kind, each with its own canaries."""
