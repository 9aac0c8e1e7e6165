"""A watcher in; the same with a tracker beside it, which is told the same events and never in the run's way, out.

The contract of a tracker in ``TRACKERS``: given a watcher that its words go to, a context manager of a watcher. Leaving it, after
all that the run and its scores wrote, is the time to bring to an end what is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from llmbatch.core.events import Event, Watcher
from llmbatch.core.table import find
from llmbatch.integrations import TRACKERS
from llmbatch.watch.watching import guarded

Tracker = Callable[[Watcher], AbstractContextManager[Watcher]]


@contextlib.contextmanager
def tracking(name: str | None, watcher: Watcher) -> Iterator[Watcher]:
    """With the tracker of this name, for the length of a run; None is none. Raises ``JobError`` where it is not installed."""
    if name is None:
        yield watcher
        return
    make: Tracker = find(TRACKERS, name, "tracker")
    with make(watcher) as made:
        tracker = guarded(made)

        def both(event: Event) -> None:
            watcher(event)
            tracker(event)

        yield both


__all__ = ["Tracker", "tracking"]
