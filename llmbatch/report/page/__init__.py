"""The page of a run: one HTML file with all that is in it."""
