"""One engine in; any number of drivers of it out, one for each run that shares it, and a line for live requests ahead of them.

The engine starts with the first request and is ended when it had nothing to do for a while; the next request starts it again. It
is driven in a thread of its own, through its deaths: what any run had in flight then goes again. A run that ends or is given up
costs only its own requests. Where the engine cannot be had any more, all who wait are told, and whoever comes later tries anew.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import EngineReady, Event, Watcher
from llmbatch.core.types import Completion, Failure, Outcome, Piece, Prompt, RequestKey, Usage
from llmbatch.engines.base import CanBeKilled, Driver, EngineInfo, SharedDriver
from llmbatch.engines.fair import Fair, Party, as_own, own_key
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.replicas import MakeOne, More, drive
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.share import Account, Client, Share
from llmbatch.engines.supervised import Cancelled

_LOOK_SECONDS = 0.5
_END_SECONDS = 60.0


class SharedEngine:
    """The engine that ``make`` makes with the settings, by as many replicas as they say. ``tell`` hears of it in its thread.

    ``idle_seconds`` without work end it; None: nothing does but ``close``. ``more`` is as ``drive`` has it.
    """

    def __init__(
        self,
        make: MakeOne,
        settings: EngineSettings,
        tell: Watcher = lambda _: None,
        idle_seconds: float | None = None,
        *,
        more: More | None = None,
    ) -> None:
        self._make = make
        self._settings = settings = kind_of(settings.name).shared(settings)
        self._tell = tell
        self._idle_seconds = idle_seconds
        self._more = more
        self._here = make(settings, 0)  # is never started: it knows the tokenizer
        self._numbers = itertools.count(1)
        self._fair = Fair()
        self._state = threading.Condition()  # for all that follows
        self._clients: dict[int, Client] = {}
        self._driver: Driver | None = None  # of the engine that is up, or comes up
        self._feed: Feed | None = None  # that it takes from
        self._ready: EngineReady | None = None  # of the engine that is up
        self._info: EngineInfo | None = None  # of the last one that was
        self._up_at = 0.0
        self._wanted = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._past = Account()

    def share(self, name: str, weight: float = 1.0, priority: int = 0) -> SharedDriver:
        """The engine as the driver of one run. Among runs of the same priority each has its share of tokens, by weight.

        A higher priority goes before a lower one. ``name`` is the run's, for messages.
        """
        if weight <= 0:
            raise ValueError(f"the weight of a share is above 0, not {weight}")
        return Share(self, name, weight, priority)

    def attach(
        self, client: Client, feed: Feed, *, weight: float = 1.0, priority: int = 0, urgent: bool = False
    ) -> int:
        """From now on the engine takes from this feed too; returns the number by which to ``detach`` it. Requests that are
        ``urgent`` go ahead of all others.
        """
        with self._state:
            if self._closing:
                raise EngineError("the shared engine was closed")
            number = next(self._numbers)
            self._clients[number] = client
            if self._ready is not None:
                client.heard(EngineReady(0.0, self._ready.description))
        feed.listen(pushed=self._pushed)
        self._fair.add(Party(number, feed, weight, priority, urgent))
        self._pushed()
        return number

    def detach(self, number: int) -> None:
        """The engine takes no more from that feed; what it has of it is given up, as far as it can be."""
        with self._state:
            self._clients.pop(number, None)
            feed = self._feed
        self._fair.remove(number)
        if feed is not None:
            feed.cancel(lambda key: key.share == number)

    def cancel(self, number: int, key: RequestKey) -> None:
        """Nobody wants this answer any more. Of one that is in flight an outcome may come all the same."""
        with self._state:
            feed = self._feed
        if feed is not None:
            wanted = RequestKey(*key[:4], number)
            if feed.withdraw({wanted}):  # it was in flight in an engine that died
                self._deal([Completion(wanted, "", "abort", Usage())])
            else:
                feed.cancel(lambda each: each == wanted)

    def need(self) -> None:
        """There is, or will be, work: start it where it is down. May be called from any thread."""
        with self._state:
            if self._closing:
                return
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llmbatch-shared-engine", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def wait_ready(self, given_up: Callable[[], bool] = lambda: False) -> EngineInfo:
        """Block until it is known what the engine is. Raises ``Cancelled`` where it was closed, or whoever waits gave it up."""
        self.need()
        with self._state:
            while self._info is None:
                if self._closing or given_up():
                    raise Cancelled
                self._state.wait(_LOOK_SECONDS)
            return self._info

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        """As ``Engine.tokenize``."""
        return self._here.tokenize(prompts)

    def close(self) -> None:
        """End it: whoever waits is told. May be called twice."""
        with self._state:
            self._closing = True
            self._state.notify_all()
            thread, driver, feed = self._thread, self._driver, self._feed
        if feed is not None:
            feed.wake()
        if driver is not None and driver.starting and isinstance(driver, CanBeKilled):
            driver.kill()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_SECONDS)
        self._here.stop()
        self._fail(EngineError("the shared engine was closed"))

    @property
    def settings(self) -> EngineSettings:
        return self._settings

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is, or was when it was up last."""
        return self._info

    @property
    def state(self) -> Literal["down", "starting", "up"]:
        """Where it stands."""
        with self._state:
            return "down" if self._driver is None else "starting" if self._ready is None else "up"

    @property
    def in_flight(self) -> int:
        """Requests that the engine has."""
        with self._state:
            feed = self._feed
        return 0 if feed is None else len(feed.in_flight)

    @property
    def waiting(self) -> int:
        """Requests that wait for it, over all who share it."""
        return len(self._fair)

    @property
    def account(self) -> Account:
        """What it did, over all its starts."""
        with self._state:
            return self._past if self._driver is None else self._past + Account.of(self._driver)

    def _pushed(self) -> None:
        """Something came into a feed, or one with something in it came."""
        with self._state:
            feed = self._feed
        if len(self._fair):
            self.need()
        if feed is not None:
            feed.notify()

    # in the engine's thread

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._wanted or self._closing)
                if self._closing:
                    return
                driver = self._driver = drive(self._make, self._settings, self._hear, more=self._more)
                feed = self._feed = Feed(waiting=self._fair, hurries=True)
            feed.listen(told=self._told)
            driver.need()
            try:
                with contextlib.closing(driver.stream(feed)) as stream:  # type: ignore[type-var]
                    self._serve(stream, feed)
            except LlmbatchError as error:
                self._fail(error)
            except BaseException as error:
                self._fail(EngineError(f"the engine's thread failed: {error!r}"))
                raise
            finally:
                driver.stop()
                with self._state:
                    self._past = self._past + Account.of(driver)
                    self._driver = self._feed = self._ready = None

    def _serve(self, stream: Iterator[list[Outcome]], feed: Feed) -> None:
        """Until it is closed, or idle for too long."""
        worked_at = time.monotonic()
        for outcomes in stream:
            self._deal(outcomes)
            now = time.monotonic()
            if outcomes or self._ready is None or feed.busy:
                worked_at = now
            worked_at = max(worked_at, self._up_at)
            with self._state:
                if self._closing:
                    return
                if self._idle_seconds is not None and now - worked_at >= self._idle_seconds and self._ready is not None:
                    self._wanted = False  # before the last look: what comes after it is wanted again
                    if not feed.busy:
                        return

    def _deal(self, outcomes: Sequence[Outcome]) -> None:
        """Give outcomes to those whose they are."""
        dealt: dict[int, list[Outcome]] = {}
        for outcome in outcomes:
            if self._fair.settle(outcome):
                dealt.setdefault(outcome.key.share, []).append(as_own(outcome))
        for number, own in dealt.items():
            if (client := self._clients.get(number)) is not None:
                client.answered(own)

    def _told(self, pieces: Sequence[Piece]) -> None:
        dealt: dict[int, list[Piece]] = {}
        for piece in pieces:
            dealt.setdefault(piece.key.share, []).append(piece._replace(key=own_key(piece.key)))
        for number, own in dealt.items():
            if (client := self._clients.get(number)) is not None:
                client.told(own)

    def _hear(self, event: Event) -> None:
        if isinstance(event, EngineReady):
            with self._state:
                driver = self._driver
                self._ready, self._up_at = event, time.monotonic()
                self._info = None if driver is None else driver.info
                for client in self._clients.values():
                    client.heard(event)
                self._state.notify_all()
        self._tell(event)

    def _fail(self, error: LlmbatchError) -> None:
        with self._state:
            clients, self._clients = self._clients, {}
            self._wanted = False
            self._state.notify_all()
        for number, client in clients.items():
            self._fair.remove(number)
            client.failed(error)


__all__ = ["SharedEngine"]
