"""Events in, only errors out (``--quiet``)."""

from __future__ import annotations

from typing import TextIO

from llmbatch.core import words
from llmbatch.core.events import Event, Note


class QuietLog:
    """A watcher that says nothing as long as nothing is wrong."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note) and event.level == "error":
            self._stream.write(f"error: {words.printable(event.message)}\n")
            self._stream.flush()
