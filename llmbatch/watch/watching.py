"""The name of a way of watching in, a watcher out; whatever happens to its screen or pipe, the run goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from llmbatch.core.errors import UsageError
from llmbatch.core.events import Event, Watcher
from llmbatch.core.notebook import in_notebook
from llmbatch.core.screen import shown
from llmbatch.core.table import find
from llmbatch.watch import WATCHERS


@contextlib.contextmanager
def watching(mode: str = "auto") -> Iterator[Watcher]:
    """A watcher for the length of a run: one of ``WATCHERS``, or ``auto``: a notebook's own, live on a terminal, lines elsewhere.

    Raises ``UsageError`` for an unknown name. The watcher itself never raises.
    """
    if mode == "auto" and in_notebook():
        mode = "notebook"
    elif mode == "auto":
        mode = "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "lines"
    if mode not in WATCHERS:
        raise UsageError(f"unknown way of watching {mode!r}: known are auto, {', '.join(WATCHERS)}")
    with find(WATCHERS, mode, "way of watching")() as watcher:
        yield guarded(watcher)


@contextlib.contextmanager
def seen_by(watchers: Sequence[Watcher] | None) -> Iterator[Sequence[Watcher]]:
    """Who watches a run that Python code starts: those who are given; with None a notebook's display, where there is a notebook."""
    if watchers is not None or not in_notebook():
        yield () if watchers is None else watchers
        return
    with watching("notebook") as view:
        yield [view]


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
            with shown(sys.stderr):
                print(f"the run goes on unwatched, its view failed: {error!r}", file=sys.stderr)

    return watch
