"""Layouts: a finished run in, the files that another system leaves of such a job out. One more is a file here and a line."""

LAYOUTS: dict[str, str] = {}
