"""What holds as long as a run goes on and is put back or ended after it, however it ends: context managers."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from llmbatch.engines.base import Driver
from llmbatch.runs.brakes import Stop

_OBJECTS = 2_000_000  # made and still there, between two searches


class _Calm:
    """How many runs of this process want the collector calm, in whatever order they end, and what it was before the first."""

    lock = threading.Lock()
    runs = 0
    before = (0, 0, 0)


@contextlib.contextmanager
def calm_collector() -> Iterator[None]:
    """Python's search for cyclic garbage comes seldom meanwhile; where it was off, by a threshold of 0, it stays off.

    Rows leave hardly any such garbage, but a search looks at every object that was made since the last one. A window's rows have
    400,000, two windows are there at a time, as one is read while the one before is answered, and answers that are kept for equal
    requests are 300,000: a search that comes before they are gone looks at all of them for nothing. With one every 500,000 a
    twentieth of the pipeline's time went there, and with one every 1,000,000 a thirtieth.
    """
    with _Calm.lock:
        if not _Calm.runs:
            _Calm.before = gc.get_threshold()
            if _Calm.before[0]:
                gc.set_threshold(_OBJECTS, 20, 1000)
        _Calm.runs += 1
    try:
        yield
    finally:
        with _Calm.lock:
            _Calm.runs -= 1
            if not _Calm.runs:
                gc.set_threshold(*_Calm.before)


@contextlib.contextmanager
def stopped_by_signals(stop: Stop, engine: Driver) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop; a second one, or one while the engine starts, ends it at once.

    Only the main thread can have handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        again, stop.reason, stop.asked = stop.asked, signal.Signals(number).name, True
        if again or engine.starting:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
