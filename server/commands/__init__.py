"""What the consortium types, by subject; `server/cli.py` binds them."""
