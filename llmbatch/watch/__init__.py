"""Ways of watching a run: its events in; a screen, lines or JSON out. A new one is a file here and a line in this table."""

WATCHERS = {
    "live": "llmbatch.watch.live:watch_live",
    "lines": "llmbatch.watch.lines:watch_lines",
    "json": "llmbatch.watch.jsonl:watch_jsonl",
    "quiet": "llmbatch.watch.quiet:watch_quiet",
}
