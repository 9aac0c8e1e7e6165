"""Evaluation: a task and a run's records in, figures with intervals out."""
