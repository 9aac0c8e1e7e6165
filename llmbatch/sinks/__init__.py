"""Sinks: a run's records in, the user's files out. A new format is a file here and a line in this table."""

SINKS = {
    "errors": "llmbatch.sinks.errors:write_errors",
    "results": "llmbatch.sinks.results:write_results",
    "children": "llmbatch.sinks.children:write_children",
    "accepted": "llmbatch.sinks.accepted:write_accepted",
    "parquet": "llmbatch.sinks.parquet:write_parquet",
    "openai": "llmbatch.sinks.openai:write_openai",
    "by_file": "llmbatch.sinks.by_file:write_by_file",
    "shards": "llmbatch.sinks.shards:write_shards",
    "layout": "llmbatch.sinks.layout:write_layout",
}
ALWAYS = ("errors", "results", "accepted")
"""Written whatever is asked for. Errors reads every line, so damage is found before results are there."""
OF_PROGRAMS = ("children",)
"""Written where the run's program says so."""
OF_LAYOUT = "layout"
"""Written where the job names a layout."""
