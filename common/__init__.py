"""What both sides of a federation agree on: errors, plans, messages, mathematics."""
