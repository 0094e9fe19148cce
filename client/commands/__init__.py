"""What hospital IT can type: one module for each kind of work, bound together in `client/cli.py`."""
