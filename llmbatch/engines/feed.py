"""The feed: requests in, in the planner's order; the engine pulls them as its slots free, and retries join the same queue.

One thread fills it (windows that were planned ahead), another pulls (the engine's loop), so every method may be called
from any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from llmbatch.core.types import Request, RequestKey


class Feed:
    """A bounded-by-its-filler queue of requests that also knows which are in flight.

    ``in_flight`` maps the key of each request that an engine took and did not yet answer to the request itself; after an
    engine died it is what must go again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._first: deque[Request] = deque()  # retries and later steps: their prefixes are still in the cache
        self._queue: deque[Request] = deque()
        self._alone: list[list[Request]] = []  # a stack of groups, each to run with nothing else in flight
        self._apart = False  # what is in flight is such a group
        self._closed = False
        self._halted = False
        self._woken = False
        self.in_flight: dict[RequestKey, Request] = {}

    def push(self, requests: Iterable[Request], *, first: bool = False) -> None:
        """Add requests at the end, or before all that wait (``first``)."""
        with self._changed:
            (self._first if first else self._queue).extend(requests)
            self._changed.notify_all()

    def take(self, slots: int, tokens: int) -> list[Request]:
        """Up to ``slots`` requests with at most ``tokens`` prompt tokens together; the first comes whatever its length.

        Never blocks; empty when nothing waits. What is taken is in flight until ``done``.
        """
        taken: list[Request] = []
        with self._changed:
            if self._halted:
                return taken
            if self._apart and self.in_flight:
                return taken
            self._apart = False
            if self._alone:
                if not self.in_flight:
                    taken = self._alone.pop()  # whole, whatever its size: who runs together is the point of a group
                    self.in_flight.update((request.key, request) for request in taken)
                    self._apart = True
                return taken
            while len(taken) < slots and (queue := self._first or self._queue):
                length = len(queue[0].token_ids or ()) + len(queue[0].partial)
                if taken and length > tokens:
                    break
                tokens -= length
                request = queue.popleft()
                self.in_flight[request.key] = request
                taken.append(request)
        return taken

    def push_alone(self, group: list[Request]) -> None:
        """Run a group with nothing else in flight, before all that waits; the last group pushed comes first.

        This is how a request that kills its engine is found: groups of suspects are halved until one is left.
        """
        with self._changed:
            self._alone.append(group)
            self._changed.notify_all()

    def done(self, key: RequestKey) -> Request:
        """The engine answered the request: it is no longer in flight. Raises ``KeyError`` for one that was not."""
        with self._changed:
            return self.in_flight.pop(key)

    def recall(self) -> list[Request]:
        """Take back all that is in flight, in the order taken: their engine is gone."""
        with self._changed:
            requests = list(self.in_flight.values())
            self.in_flight.clear()
            return requests

    def halt(self) -> None:
        """Give nothing more out: the run is stopping. What is in flight may still finish."""
        with self._changed:
            self._halted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be pushed, so an engine may return once it has answered all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """End the present or the next ``wait``: who drives the engine has something to push once it is given a turn."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Block until something is pushed, the feed is closed, halted or woken, or ``timeout`` seconds have passed."""
        with self._changed:
            if not (self._first or self._queue or self._alone or self._closed or self._halted or self._woken):
                self._changed.wait(timeout)
            self._woken = False

    @property
    def halted(self) -> bool:
        """Whether ``halt`` was called."""
        return self._halted

    @property
    def waiting(self) -> int:
        """How many requests wait to be taken."""
        return len(self._first) + len(self._queue) + sum(map(len, self._alone))

    @property
    def finished(self) -> bool:
        """Whether nothing is in flight and nothing more will be given out."""
        with self._changed:
            if self.in_flight:
                return False
            return self._halted or (self._closed and not (self._first or self._queue or self._alone))
