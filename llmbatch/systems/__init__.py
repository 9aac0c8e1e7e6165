"""Systems whose job documents are read."""
