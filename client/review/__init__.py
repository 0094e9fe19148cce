"""What waits for a person's decision, and the page on which it is made."""
