"""An iterator of windows in, the same windows out, made ahead of the one who takes them in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from llmbatch.engines.supervised import Cancelled
from llmbatch.runs.window import OpenWindow


class ReadAhead:
    """Runs an iterator in a thread, at most ``size`` items ahead; its error is raised where the item would have come."""

    def __init__(self, windows: Iterator[OpenWindow], size: int) -> None:
        self._queue: queue.Queue[OpenWindow | BaseException | None] = queue.Queue(maxsize=size)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(windows,), name="llmbatch-reader", daemon=True)
        self._ready: Callable[[], None] = lambda: None
        self.ended = False

    def start(self, ready: Callable[[], None] = lambda: None) -> None:
        """Begin; ``ready`` is called from the thread whenever an item is there to get."""
        self._ready = ready
        self._thread.start()

    def get(self, timeout: float) -> OpenWindow | None:
        """The next window, or ``None`` where none is ready in time or none will come (then ``ended`` is set)."""
        if self.ended:
            return None
        try:
            item = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self.ended = True
            return None
        if isinstance(item, BaseException):
            self.ended = True
            raise item
        return item

    def stop(self) -> None:
        """Let the thread end; what it has ready is dropped (its journals stay)."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.05)
        self.ended = True

    def _run(self, windows: Iterator[OpenWindow]) -> None:
        try:
            for window in windows:
                self._put(window)
                if self._stopped.is_set():
                    return
            self._put(None)
        except Cancelled:
            return
        except BaseException as error:
            self._put(error)

    def _put(self, item: OpenWindow | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                self._ready()
                return
            except queue.Full:
                continue
