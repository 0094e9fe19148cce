"""Networks by name, losses, and metrics with intervals."""
