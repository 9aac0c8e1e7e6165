"""Acceptance: which of a run's rows its dataset is made of, and how many more must be asked until there are enough."""
