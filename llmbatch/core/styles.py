"""A status or the level of a note in; its colour on a terminal out, the same wherever it is shown."""

from __future__ import annotations

from rich.text import Text

from llmbatch.core import words

STYLES = {"ok": "green", "invalid": "yellow", "truncated": "yellow", "failed": "red", "skipped": "cyan"}
NOTE_STYLES = {"info": "dim", "warning": "yellow", "error": "bold red"}


def note_text(level: str, message: str) -> Text:
    """A note in the colour of its level."""
    text = words.printable(message)
    return Text(text if level == "info" else f"{level}: {text}", style=NOTE_STYLES[level])
