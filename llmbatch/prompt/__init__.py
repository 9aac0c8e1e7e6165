"""Prompts: a row in, what the model is to answer out."""
