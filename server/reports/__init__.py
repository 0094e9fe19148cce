"""The consortium's report, made of released summaries only."""
