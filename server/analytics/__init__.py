"""The server's half of an analysis ([docs/analytics.md]): asked, summed, tested, drawn."""
