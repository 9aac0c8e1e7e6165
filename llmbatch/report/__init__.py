"""Reporting: what became of the rows in; the report of a run, for programs and for a person, out."""
