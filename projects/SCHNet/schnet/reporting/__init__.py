"""The report of a run: one page, and the summary of several seeds."""
