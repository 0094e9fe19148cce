"""The hospital's half of an analysis: counted, held to the year, noised or suppressed ([docs/analytics.md])."""
