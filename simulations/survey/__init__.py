"""A scenario's hospitals counted and compared before any training ([docs/analytics.md])."""
