"""The name of a way of watching in, a watcher out; whatever happens to its screen or pipe, the run goes on.

A new way of watching is one file here and one line in ``WATCHERS``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TextIO

from llmbatch.core.errors import UsageError
from llmbatch.core.events import Event, Watcher


@contextlib.contextmanager
def _live() -> Iterator[Watcher]:
    from rich.console import Console

    from llmbatch.report.live import LiveView

    with own_stream(sys.stderr) as stream, LiveView(Console(file=stream)) as view:
        yield view


@contextlib.contextmanager
def _lines() -> Iterator[Watcher]:
    from llmbatch.report.lines import LineLog

    with own_stream(sys.stderr) as stream:
        yield LineLog(stream)


@contextlib.contextmanager
def _json() -> Iterator[Watcher]:
    from llmbatch.report.jsonl import JsonLog

    with own_stream(sys.stdout) as stream:
        yield JsonLog(stream)


@contextlib.contextmanager
def _quiet() -> Iterator[Watcher]:
    from llmbatch.report.quiet import QuietLog

    with own_stream(sys.stderr) as stream:
        yield QuietLog(stream)


WATCHERS: dict[str, Callable[[], AbstractContextManager[Watcher]]] = {
    "live": _live,
    "lines": _lines,
    "json": _json,
    "quiet": _quiet,
}


@contextlib.contextmanager
def watching(mode: str = "auto") -> Iterator[Watcher]:
    """A watcher for the length of a run: one of ``WATCHERS``, or ``auto``: live on a terminal, lines elsewhere.

    Raises ``UsageError`` for an unknown name. The watcher itself never raises.
    """
    if mode == "auto":
        mode = "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "lines"
    if mode not in WATCHERS:
        raise UsageError(f"unknown way of watching {mode!r}: known are auto, {', '.join(WATCHERS)}")
    with WATCHERS[mode]() as watcher:
        yield guarded(watcher)


def guarded(watcher: Watcher) -> Watcher:
    """The same watcher, which is switched off by its first error: told once on stderr, and the run goes on."""
    broken = False

    def watch(event: Event) -> None:
        nonlocal broken
        if broken:
            return
        try:
            watcher(event)
        except Exception as error:
            broken = True
            with contextlib.suppress(OSError):
                print(f"the run goes on unwatched, its view failed: {error!r}", file=sys.stderr)

    return watch


@contextlib.contextmanager
def own_stream(stream: TextIO) -> Iterator[TextIO]:
    """A stream of our own to the same place: an engine may point descriptors 1 and 2 at its log while it runs."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # not a file: a test's, a notebook's
        yield stream
        return
    copy = os.fdopen(descriptor, "w", encoding=stream.encoding, errors=stream.errors)
    try:
        yield copy
    finally:
        with contextlib.suppress(OSError):  # a pipe whose reader is gone
            copy.close()
