"""Self-contained pages: one HTML file, its style and its drawings inside, nothing fetched."""
