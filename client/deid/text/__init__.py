"""Text that is part of the picture: found, read, blanked or shown to a person."""
