"""Journal entries and complete windows in, files out: a thread of its own, so that a slow disk never leaves the engine waiting.

Operations run in the order given. The first that fails is the last: nothing is written after it, and its error is raised by the
next ``check`` or ``close``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from llmbatch.core.errors import WriteError
from llmbatch.folder.parts import Parts
from llmbatch.runs.window import OpenWindow


class Writer:
    """Writes for one run. Memory is bounded by a runner that looks at ``sealing`` before it opens more windows."""

    def __init__(self, parts: Parts, commit_seconds: float) -> None:
        self._parts = parts
        self._commit_seconds = commit_seconds
        self._committed = time.monotonic()
        self._appended = False  # since the last commit
        self._broken = False
        self._sealed: deque[Future[None]] = deque()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbatch-writer")
        self._pending: deque[Future[None]] = deque()

    def append(self, window: OpenWindow) -> None:
        """Append a window's new entries to its journal."""
        entries, window.entries = window.entries, []
        if entries:
            self._appended = True
            self._submit(lambda: self._parts.append(window.bounds.window, entries))

    def seal(self, window: OpenWindow) -> None:
        """Write a complete window's part and remove its journal; its unwritten entries are no longer needed."""
        window.entries = []
        sealed = self._submit(
            lambda: self._parts.seal(
                window.bounds, window.sealed_lines(), ledger=window.ledger.as_dict(), input_sha256=window.input_sha256
            )
        )
        self._sealed.append(sealed)

    def flush(self) -> None:
        """Wait until all that was given so far is in its files. Raises the first error."""
        while self._pending:
            self._pending.popleft().result()

    def check(self) -> None:
        """Raise the error of an operation that failed, as soon as it is known; commit when it is time. Call it now and then."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        now = time.monotonic()
        if self._appended and now - self._committed >= self._commit_seconds:
            self._appended, self._committed = False, now
            self._submit(self._parts.commit)

    @property
    def sealing(self) -> int:
        """How many windows were given to ``seal`` and are not on disk yet."""
        while self._sealed and self._sealed[0].done():
            self._sealed.popleft()
        return len(self._sealed)

    def wait_for_seal(self, timeout: float) -> bool:
        """Wait until one window more is on disk; ``False`` where that took longer."""
        return not self._sealed or bool(wait([self._sealed[0]], timeout).done)

    def abandon(self) -> None:
        """Write nothing more: the folder is no longer ours."""
        self._broken = True

    def close(self) -> None:
        """Wait for all that was given, commit and close the journals. Raises the first error."""
        try:
            self.flush()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)
            try:
                self._parts.close()
            except WriteError:
                if not self._broken:  # else the first error is the one to be told
                    raise

    def _submit(self, operation: Callable[[], None]) -> Future[None]:
        future = self._executor.submit(self._run, operation)
        self._pending.append(future)
        return future

    def _run(self, operation: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            operation()
        except BaseException:
            self._broken = True
            raise
