"""The demo: a model and two corpora that come along, run for real."""
