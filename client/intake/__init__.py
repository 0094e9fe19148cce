"""From the PACS or a folder to the quarantine, and from there, file by file, to the index."""

from client.intake.summary import IntakeCounts, cli_rows, intake_summary

__all__ = ["IntakeCounts", "cli_rows", "intake_summary"]
