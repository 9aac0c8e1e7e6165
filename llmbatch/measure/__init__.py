"""Measuring: a job in; what it will take, and which engine settings are faster, out."""
