"""The hospital's own report, which stays in the hospital."""
