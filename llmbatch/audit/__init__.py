"""The proof that a run folder is whole."""
