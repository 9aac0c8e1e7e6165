"""A feed of requests in; their outcomes out, from servers that an event loop in a thread of its own talks to.

The thread of its own keeps connections going while the caller checks and writes, and is there where the caller has an event loop
of its own already, as a notebook does. It holds about as many requests again as the servers are sent at a time, so that a slot
that frees is filled without the caller.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from llmbatch.core.errors import EngineDied, EngineError
from llmbatch.core.types import Completion, Outcome, Usage
from llmbatch.engines.feed import Requests
from llmbatch.engines.http.base import Wire
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.sender import Sender

T = TypeVar("T")

_WAIT_SECONDS = 0.5  # the longest that a step lasts
_LOOK_SECONDS = 0.05  # between two looks into the feed while it is empty and there is room
_GATHER_SECONDS = 0.003  # after an answer, for those that come right behind it
_LEAST_AHEAD = 8


class Loop:
    """Drives the servers of a pool. ``timeout``: seconds without any sign of life of theirs after which they count as gone."""

    def __init__(self, wire: Wire, pool: Pool, client: Client, timeout: float, log: Path) -> None:
        self._wire = wire
        self._pool = pool
        self._client = client
        self._timeout = timeout
        self._log = log
        self._noted: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None
        self._happened = threading.Event()
        self._outcomes: deque[Outcome] = deque()
        self._failed: EngineError | None = None
        self._held = 0  # requests taken and not answered
        self._marked_at = time.monotonic()
        self.busy = 0.0
        self.counts = Usage()

    def call(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something with the client before, or beside, the requests; starts the thread if need be. Raises what it raises."""
        self._begin()

        async def run() -> T:
            return await work(self._client)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``. Raises ``EngineError`` where no request will be answered."""
        self._begin()
        self._sign_of_life()
        self._marked_at = time.monotonic()
        while True:
            self._fill(feed)
            outcomes = self._take()
            if not outcomes and not self._held:
                if feed.finished:
                    return
                feed.wait(_WAIT_SECONDS)
            yield outcomes
            self._see_that_it_lives()
            if self._held:
                self._wait()
            self._mark()

    def abort(self) -> None:
        """Give up what is in flight."""
        if self._sender is not None:
            self._in_thread(self._sender.abort)
        self._outcomes.clear()
        self._held = 0

    def stop(self) -> None:
        """End the thread and close the connections."""
        if self._thread is None:
            return
        self.abort()
        asyncio.run_coroutine_threadsafe(self._client.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None
        self._say(f"at a time, at the end: {', '.join(f'{s.limit.now} to {s.url}' for s in self._pool.servers)}")

    def note(self, message: str) -> None:
        """Write to the engine's log; each message once."""
        if message not in self._noted and len(self._noted) < 10_000:
            self._noted.add(message)
            self._say(message)

    def _say(self, message: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def _begin(self) -> None:
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmbatch-http", daemon=True)
        self._thread.start()

        async def ready() -> None:
            await self._client.__aenter__()
            self._sender = Sender(self._wire, self._pool, self._client, self._deliver, self._fail, self.note)

        asyncio.run_coroutine_threadsafe(ready(), self._loop).result()

    def _in_thread(self, what: Callable[..., Any], *arguments: Any) -> None:
        """Run something in the thread, and wait until it is done."""
        done = threading.Event()

        def run() -> None:
            what(*arguments)
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _fill(self, feed: Requests) -> None:
        """Take what there is room for."""
        capacity = self._pool.capacity
        slots = capacity + max(_LEAST_AHEAD, capacity) - self._held
        if slots > 0 and (requests := feed.take(slots, 1 << 40)):
            if not self._held:  # servers with nothing to do gave no sign of life: their time begins now
                self._sign_of_life()
            self._held += len(requests)
            assert self._sender is not None  # noqa: S101 - for the type checker
            self._loop.call_soon_threadsafe(self._sender.add, requests)

    def _take(self) -> list[Outcome]:
        """What came since the last step."""
        taken = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        self._held -= len(taken)
        for outcome in taken:
            if isinstance(outcome, Completion):
                self.counts = self.counts + outcome.usage
        return taken

    def _wait(self) -> None:
        """Until something comes; not long where the feed may have more to send."""
        room = self._held < self._pool.capacity
        if self._happened.wait(_LOOK_SECONDS if room else _WAIT_SECONDS):
            self._happened.clear()
            if len(self._outcomes) < self._held:
                time.sleep(_GATHER_SECONDS)

    def _see_that_it_lives(self) -> None:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        assert self._sender is not None  # noqa: S101 - for the type checker
        silent = time.monotonic() - self._sender.alive_at
        if self._held and silent > self._timeout:
            urls = ", ".join(server.url for server in self._pool.servers)
            raise EngineDied(f"no sign of life of {urls} for {silent:.0f} s", suspect=False)

    def _sign_of_life(self) -> None:
        if self._sender is not None:
            self._sender.alive_at = max(self._sender.alive_at, time.monotonic())

    def _deliver(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._happened.set()

    def _fail(self, error: EngineError) -> None:
        self._failed = self._failed or error
        self._happened.set()

    def _mark(self) -> None:
        """Count the time since the last mark as busy if there was work."""
        now = time.monotonic()
        if self._held:
            self.busy += now - self._marked_at
        self._marked_at = now


__all__ = ["Loop"]
