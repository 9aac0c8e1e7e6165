"""Events in, only errors out (``--quiet``)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO

from llmbatch.core import words
from llmbatch.core.events import Event, Note, Watcher
from llmbatch.watch.base import own_stream


class QuietLog:
    """A watcher that says nothing as long as nothing is wrong."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note) and event.level == "error":
            self._stream.write(f"error: {words.printable(event.message)}\n")
            self._stream.flush()


@contextlib.contextmanager
def watch_quiet() -> Iterator[Watcher]:
    """Warnings and errors on stderr."""
    with own_stream(sys.stderr) as stream:
        yield QuietLog(stream)
