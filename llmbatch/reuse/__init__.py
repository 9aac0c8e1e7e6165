"""Reuse: equal requests in; one of them to be answered, its outcome for the others, out: within a run and across runs."""
