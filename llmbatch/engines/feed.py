"""The feed: requests in, in the planner's order; the engine pulls them as its slots free, and retries join the same queue.

One thread fills it (windows that were planned ahead), others pull (an engine's loop each), so every method may be called from
any thread. Where several engines pull, each has a fork: what waits is shared out among them as ``waiting`` says, and what is in
flight is known for each of them apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from llmbatch.core.types import Piece, Request, RequestKey
from llmbatch.engines.waiting import NO_GROUPS, Groups, Lanes, Line, Waiting


class Requests(Protocol):
    """What an engine needs of a feed."""

    def take(self, slots: int, tokens: int) -> list[Request]:
        """As ``Feed.take``."""

    def wait(self, timeout: float) -> None: ...

    @property
    def finished(self) -> bool: ...

    @property
    def urgent(self) -> bool:
        """Whether something waits that is to be taken even where there is no slot."""

    @property
    def hurries(self) -> bool:
        """Whether such may come: then an engine looks often, or sleeps in ``rest``."""

    def rest(self, timeout: float) -> None:
        """Sleep, but no longer than until there is something urgent, or something is given up."""

    def take_cancelled(self) -> Sequence[RequestKey]:
        """What is in flight and nobody wants any more. Who can ends it, and it gets an outcome at once; who cannot goes on."""

    def tell(self, pieces: Sequence[Piece]) -> None:
        """Parts of answers to requests that are to ``stream``."""


class _Shared:
    """What a feed and its forks have in common; looked at and changed only with ``changed`` held."""

    def __init__(self, waiting: Waiting, *, hurries: bool) -> None:
        self.changed = threading.Condition()
        self.waiting = waiting
        self.hurries = hurries
        self.forks = 0  # made so far
        self.closed = False
        self.halted = False
        self.feeds: list[Feed] = []  # the one that they were made of first
        self.unsettled = 0  # answered by an engine of a fork, and not yet settled: more may follow from them
        self.pushed: Callable[[], None] | None = None  # called after each push
        self.told: Callable[[Sequence[Piece]], None] | None = None


class Feed:
    """A bounded-by-its-filler queue of requests that also knows which are in flight.

    A fork is a feed too: it takes from the queue of the feed that it was made of, but has its own requests in flight and its own
    groups. It is finished when nothing is left to do in any fork: what is in flight elsewhere may still come back.
    """

    def __init__(self, shared: _Shared | None = None, *, waiting: Waiting | None = None, hurries: bool = False) -> None:
        """``waiting`` is in which order requests come, by default as they are pushed; it ``hurries`` where urgent ones may come."""
        self._is_fork = shared is not None
        self._shared = shared or _Shared(Line() if waiting is None else waiting, hurries=hurries)
        self._number = self._shared.forks
        self._changed = self._shared.changed
        self._alone: list[list[Request]] = []  # a stack of groups, each to run with nothing else in flight
        self._apart = False  # what is in flight is such a group
        self._paused = False
        self._woken = False
        self._own: dict[RequestKey, Request] = {}
        self._cancelled: list[RequestKey] = []
        self._shared.feeds.append(self)

    def fork(self) -> Feed:
        """A feed for one of several engines. Whoever settles what they answer says so with ``settled``."""
        with self._changed:
            shared = self._shared
            shared.forks += 1
            self._join(shared.forks)
            return Feed(shared)

    def leave(self) -> None:
        """Of a fork: its engine is gone for good. What it had in flight, and its groups, go to the others."""
        with self._changed:
            left = [*self._own.values(), *(request for group in reversed(self._alone) for request in group)]
            self._own.clear()
            self._alone.clear()
            self._shared.feeds.remove(self)
            self._shared.waiting.push_back(left)
            self._shared.waiting.part(self._number)
            self._changed.notify_all()

    def serve(self, engine: int) -> None:
        """One of several engines takes from here by its number, by way of another feed: a prefix has its home with one of them."""
        with self._changed:
            self._join(engine)

    def forget(self, engine: int, *, for_good: bool) -> None:
        """The cache of an engine that takes by its number is gone; ``for_good``: and the engine."""
        with self._changed:
            if for_good:
                self._shared.waiting.part(engine)
            else:
                self._shared.waiting.leave(engine)

    def answered(self, engine: int, key: RequestKey) -> None:
        """An engine that takes by its number answered a request: what follows in its row finds its prefix there."""
        with self._changed:
            self._shared.waiting.answered(engine, key)

    def _join(self, engine: int) -> None:
        shared = self._shared
        if isinstance(shared.waiting, Line):
            shared.waiting = Lanes(shared.waiting)
        shared.waiting.join(engine)

    def push(self, requests: Iterable[Request], groups: Groups = NO_GROUPS, *, first: bool = False) -> None:
        """Add requests at the end, or before all that wait (``first``).

        ``groups`` says which of them share a prefix. What is pushed into a fork comes from an engine that died: it is anybody's.
        """
        with self._changed:
            if first:
                self._shared.waiting.push_first(requests, follow=not self._is_fork)
            else:
                self._shared.waiting.push(requests, groups)
            self._changed.notify_all()
        if (pushed := self._shared.pushed) is not None:
            pushed()

    def push_urgent(self, requests: Iterable[Request]) -> None:
        """Add requests that are to be taken at once, even where there is no slot."""
        with self._changed:
            self._shared.waiting.push_urgent(requests)
            self._changed.notify_all()

    def withdraw(self, keys: Collection[RequestKey]) -> set[RequestKey]:
        """Take requests back that wait; returns which those were, of the ones named."""
        with self._changed:
            return self._shared.waiting.withdraw(keys)

    def take(self, slots: int, tokens: int, engine: int | None = None) -> list[Request]:
        """Up to ``slots`` requests with at most ``tokens`` prompt tokens together; the first comes whatever its length.

        Never blocks; empty when nothing waits. What is taken is in flight until ``done``. With no slots, or fewer than none, it is
        what is urgent. ``engine`` is the number of one that takes by way of another feed, see ``serve``.
        """
        taken: list[Request] = []
        shared = self._shared
        with self._changed:
            if shared.halted or self._paused:
                return taken
            if self._apart and self._own:
                return taken
            self._apart = False
            if self._alone:
                if not self._own:
                    taken = self._alone.pop()  # whole, whatever its size: who runs together is the point of a group
                    self._own.update((request.key, request) for request in taken)
                    self._apart = True
                return taken
            taken = shared.waiting.take(self._number if engine is None else engine, slots, tokens)
            for request in taken:
                self._own[request.key] = request
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
        return self.done_all((key,))[0]

    def done_all(self, keys: Iterable[RequestKey]) -> list[Request]:
        """The same of several requests."""
        with self._changed:
            requests = [self._own.pop(key) for key in keys]
            if self._is_fork:
                self._shared.unsettled += len(requests)
                for request in requests:
                    self._shared.waiting.answered(self._number, request.key)
            return requests

    def keep(self, request: Request) -> None:
        """It was recalled, and is in flight again until ``done``: its outcome is known, and comes a little later."""
        with self._changed:
            self._own[request.key] = request

    def settled(self, count: int) -> None:
        """So many of the requests that forks are done with are settled: what follows from them was pushed."""
        with self._changed:
            self._shared.unsettled -= count
            self._changed.notify_all()

    def recall(self) -> list[Request]:
        """Take back all that is in flight here, not in forks, in the order taken: their engine is gone."""
        with self._changed:
            requests = list(self._own.values())
            self._own.clear()
            self._cancelled.clear()
            if self._is_fork:
                self._shared.waiting.leave(self._number)
            self._changed.notify_all()
            return requests

    def cancel(self, which: Callable[[RequestKey], bool]) -> None:
        """Nobody wants the outcomes of these any more: an engine that has one may end it."""
        with self._changed:
            for feed in self._shared.feeds:
                before = set(feed._cancelled)
                feed._cancelled = [key for key in feed._own if key in before or which(key)]
            self._changed.notify_all()

    def take_cancelled(self) -> Sequence[RequestKey]:
        """As ``Requests``: each is said once."""
        if not self._cancelled:
            return ()
        with self._changed:
            cancelled, self._cancelled = self._cancelled, []
            return cancelled

    def halt(self) -> None:
        """Give nothing more out: the run is stopping. What is in flight may still finish."""
        with self._changed:
            self._shared.halted = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Give nothing more out here until ``resume``: an engine returns once it has answered what it has."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Give out again. May be called where nothing was paused."""
        with self._changed:
            self._paused = False

    def close(self) -> None:
        """Nothing more will be pushed, so an engine may return once it has answered all."""
        with self._changed:
            self._shared.closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """End the present or the next ``wait`` or ``doze``: who drives the engine has something to do once it is given a turn."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def notify(self) -> None:
        """Something may have come where this feed's requests come from: who waits for such looks again."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Block until there is something to take, the feed is finished, halted or woken, or ``timeout`` seconds have passed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._anything() or self._shared.halted or self._woken or self._is_finished(), timeout
            )
            self._woken = False

    def doze(self, timeout: float) -> None:
        """Block until woken, whatever waits, or ``timeout`` seconds have passed: for who drives the engines of the forks."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken, timeout)
            self._woken = False

    def rest(self, timeout: float) -> None:
        """As ``Requests``; ends too when woken."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self.urgent or self._cancelled, timeout)
            self._woken = False

    def listen(
        self,
        *,
        pushed: Callable[[], None] | None = None,
        told: Callable[[Sequence[Piece]], None] | None = None,
    ) -> None:
        """Who is called, from whichever thread, after something was ``pushed``, and with what ``tell`` is given."""
        self._shared.pushed, self._shared.told = pushed, told

    def tell(self, pieces: Sequence[Piece]) -> None:
        """As ``Requests``: to who listens."""
        if self._shared.told is not None:
            self._shared.told(pieces)

    @property
    def in_flight(self) -> dict[RequestKey, Request]:
        """Key -> request of each that an engine took here or in a fork, and did not yet answer. Not to be changed."""
        with self._changed:
            feeds = self._feeds()
            return self._own if len(feeds) == 1 else {k: r for feed in feeds for k, r in feed._own.items()}

    @property
    def busy(self) -> bool:
        """Whether something waits or is in flight, here or in a fork; ``in_flight`` puts all of it together to say so."""
        with self._changed:
            return bool(self._shared.waiting) or any(feed._own or feed._alone for feed in self._feeds())

    @property
    def halted(self) -> bool:
        """Whether ``halt`` was called."""
        return self._shared.halted

    @property
    def paused(self) -> bool:
        """Whether ``pause`` was called, and ``resume`` was not since."""
        return self._paused

    @property
    def urgent(self) -> bool:
        """As ``Requests``. While a group runs apart nothing is."""
        return self._shared.waiting.has_urgent and not (self._alone or self._apart or self._paused)

    @property
    def hurries(self) -> bool:
        """As ``Requests``."""
        return self._shared.hurries

    @property
    def waiting(self) -> int:
        """How many requests wait to be taken."""
        shared = self._shared
        with self._changed:
            groups = sum(len(group) for feed in self._feeds() for group in feed._alone)
            return len(shared.waiting) + groups

    @property
    def finished(self) -> bool:
        """Whether nothing is in flight and nothing more will be given out; while it is paused: nothing is in flight here."""
        with self._changed:
            return self._is_finished()

    def _is_finished(self) -> bool:
        if self._paused:
            return not self._own
        if self._shared.halted:
            return not any(feed._own for feed in self._feeds())
        return self._shared.closed and not self._busy()

    def _busy(self) -> bool:
        """Whether something waits or is in flight, here or elsewhere, or may follow from what was answered."""
        shared = self._shared
        if shared.waiting or shared.unsettled:
            return True
        return any(feed._own or feed._alone for feed in shared.feeds)

    def _anything(self) -> bool:
        return bool(self._shared.waiting or self._alone)

    def _feeds(self) -> list[Feed]:
        """A fork alone; a feed with its forks."""
        return [self] if self._is_fork else self._shared.feeds


__all__ = ["Feed", "Requests"]
