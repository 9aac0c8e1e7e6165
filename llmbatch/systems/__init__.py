"""Other systems' job documents: what they ask for in, a job of ours out. One more is a file here and a line in this table."""

SYSTEMS: dict[str, str] = {}
