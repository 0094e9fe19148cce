"""The consortium: rounds, admission, strategies, reports."""
