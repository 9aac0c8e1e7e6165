"""Journal entries and complete windows in, files out: a thread of its own, so that a slow disk never leaves the engine waiting.

Operations run in the order given. The first that fails ends the run: its error is raised by the next ``check`` or ``close``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from llmbatch.parts import Parts
from llmbatch.windows import OpenWindow


class Writer:
    """Writes for one run. Memory is bounded by the windows that the runner keeps open until they are sealed."""

    def __init__(self, parts: Parts, commit_seconds: float) -> None:
        self._parts = parts
        self._commit_seconds = commit_seconds
        self._committed = time.monotonic()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbatch-writer")
        self._pending: deque[Future[None]] = deque()

    def append(self, window: OpenWindow) -> None:
        """Append a window's new entries to its journal."""
        entries, window.entries = window.entries, []
        if entries:
            self._submit(lambda: self._append(window.bounds.window, entries))

    def seal(self, window: OpenWindow) -> Future[None]:
        """Write a complete window's part and remove its journal; its unwritten entries are no longer needed."""
        window.entries = []
        return self._submit(
            lambda: self._parts.seal(
                window.bounds, window.sealed_lines(), ledger=window.ledger.as_dict(), input_sha256=window.input_sha256
            )
        )

    def run(self, operation: Callable[[], None]) -> None:
        """Do something else in the writer's thread, in turn."""
        self._submit(operation)

    def check(self) -> None:
        """Raise the error of an operation that failed, as soon as it is known."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    @property
    def behind(self) -> int:
        """How many operations wait."""
        return len(self._pending)

    def close(self) -> None:
        """Wait for all that was given, commit and close the journals. Raises the first error."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._parts.close()

    def _append(self, window: int, entries: list[bytes]) -> None:
        self._parts.append(window, entries)
        now = time.monotonic()
        if now - self._committed >= self._commit_seconds:
            self._committed = now
            self._parts.commit()

    def _submit(self, operation: Callable[[], None]) -> Future[None]:
        future = self._executor.submit(operation)
        self._pending.append(future)
        return future
