"""Ways of watching a run: events in; a screen, lines, JSON or a display out. One more is a file here and a line in this table."""

WATCHERS = {
    "live": "llmbatch.watch.live:watch_live",
    "lines": "llmbatch.watch.lines:watch_lines",
    "json": "llmbatch.watch.jsonl:watch_jsonl",
    "quiet": "llmbatch.watch.quiet:watch_quiet",
    "notebook": "llmbatch.watch.notebook:watch_notebook",
}
