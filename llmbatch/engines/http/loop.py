"""A feed of requests in; their outcomes out, from servers that an event loop in a thread of its own talks to.

The thread of its own keeps connections going while the caller checks and writes, and is there where the caller has an event loop
of its own already, as a notebook does. It holds about as many requests again as the servers are sent at a time, so that a slot
that frees is filled without the caller.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from llmbatch.core.errors import EngineDied, LlmbatchError
from llmbatch.core.types import Completion, Outcome, Usage
from llmbatch.engines.feed import Requests
from llmbatch.engines.http.base import Wire
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.log import Log
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.sender import MayGrow, Sender
from llmbatch.engines.http.thread import EventThread

_WAIT_SECONDS = 0.5  # the longest that a step lasts
_LOOK_SECONDS = 0.05  # between two looks into the feed while it is empty and there is room
_GATHER_SECONDS = 0.003  # after an answer, for those that come right behind it
_LEAST_AHEAD = 8


class Loop:
    """Drives the servers of a pool. ``timeout``: seconds without any sign of life of theirs after which they count as gone.

    ``may_grow`` is asked before one whose limit asks is given more at a time.
    """

    def __init__(
        self, wire: Wire, pool: Pool, thread: EventThread, timeout: float, log: Log, may_grow: MayGrow | None = None
    ) -> None:
        self._may_grow = may_grow
        self._wire = wire
        self._pool = pool
        self._thread = thread
        self._timeout = timeout
        self._log = log
        self._sender: Sender | None = None
        self._happened = threading.Event()
        self._outcomes: deque[Outcome] = deque()
        self._failed: LlmbatchError | None = None
        self._held = 0  # requests taken and not answered
        self._marked_at = time.monotonic()
        self.busy = 0.0
        self.counts = Usage()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``. Raises what the wire raises."""
        if self._sender is None:
            self._sender = self._thread.call(self._make_sender)
        self._sign_of_life()
        self._marked_at = time.monotonic()
        while True:
            self._fill(feed)
            if cancelled := feed.take_cancelled():
                self._thread.soon(self._sender.cancel, frozenset(cancelled))
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
        sender = self._sender
        if sender is not None and self._thread.runs:

            async def abort(_: Client) -> None:
                sender.abort()

            self._thread.call(abort)
        self._outcomes.clear()
        self._held = 0
        self._failed = None

    def stop(self) -> None:
        """Give up what is in flight, for good."""
        self.abort()
        if self._sender is not None:
            levels = ", ".join(f"{server.limit.now} to {server.url}" for server in self._pool.servers)
            self._log.say(f"requests at a time, at the end: {levels}")
            self._sender = None

    async def _make_sender(self, client: Client) -> Sender:
        return Sender(self._wire, self._pool, client, self._deliver, self._fail, self._log.once, self._may_grow)

    def _fill(self, feed: Requests) -> None:
        """Take what there is room for."""
        capacity = self._pool.capacity
        slots = capacity + max(_LEAST_AHEAD, capacity) - self._held
        if slots > 0 and (requests := feed.take(slots, 1 << 40)):
            if not self._held:  # servers with nothing to do gave no sign of life: their time begins now
                self._sign_of_life()
            self._held += len(requests)
            assert self._sender is not None  # noqa: S101 - for the type checker
            self._thread.soon(self._sender.add, requests)

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
            # a request at which they hang may be why, unless it was seen that they, or what is behind a gateway, are not there
            raise EngineDied(f"no sign of life of {urls} for {silent:.0f} s", suspect=self._sender.nothing_came)

    def _sign_of_life(self) -> None:
        if self._sender is not None:
            self._sender.alive_at = max(self._sender.alive_at, time.monotonic())

    def _deliver(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._happened.set()

    def _fail(self, error: LlmbatchError) -> None:
        self._failed = self._failed or error
        self._happened.set()

    def _mark(self) -> None:
        """Count the time since the last mark as busy if there was work."""
        now = time.monotonic()
        if self._held:
            self.busy += now - self._marked_at
        self._marked_at = now


__all__ = ["Loop"]
