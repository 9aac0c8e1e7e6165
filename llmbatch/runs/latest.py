"""Files that only show where a run stands in, written by a thread of their own: a slow disk never leaves the engine waiting.

Nothing is lost with such a file, so of what waits to be written to the same one only the newest is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Latest:
    """Writes for one session of a run. A failed write is raised once, by the next ``put`` or ``flush``; then it is tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], None]] = {}
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbatch-latest")
        self._turn: Future[None] | None = None  # of the thread, while something waits

    def put(self, name: str, write: Callable[[], None]) -> None:
        """Have a file written, by its name, in place of what waits for it."""
        with self._lock:
            self._waiting[name] = write
            if self._turn is None:
                self._turn = self._executor.submit(self._write)
            turn = self._turn
            if turn.done():  # only where it failed is it kept
                self._turn = None
        if turn.done():
            turn.result()

    def flush(self) -> None:
        """Wait until all is written."""
        turn = self._turn
        if turn is None:
            return
        try:
            turn.result()
        except BaseException:
            with self._lock:
                self._turn = None
            raise

    def close(self) -> None:
        """End the thread; what waits is left, as after ``flush`` nothing does."""
        with self._lock:
            self._waiting.clear()
        self._executor.shutdown(wait=True)

    def _write(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._turn = None
                    return
                write = self._waiting.pop(next(iter(self._waiting)))
            write()


__all__ = ["Latest"]
