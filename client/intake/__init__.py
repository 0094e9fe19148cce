"""From the PACS or a folder to the quarantine, and from there, file by file, to the index."""
