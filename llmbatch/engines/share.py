"""A shared engine in; one run's part of it out, as the run's driver: what it starts, gives up and counts is its own alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import EngineReady, Replica, Watcher
from llmbatch.core.types import Completion, Failure, Outcome, Piece, Prompt, Usage
from llmbatch.engines.base import Driver, EngineInfo, idle_share
from llmbatch.engines.feed import Feed

_LOOK_SECONDS = 0.5


class Client(Protocol):
    """Who has requests in a shared engine. All of it is called by the engine's threads, and must not block."""

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        """These are answered. What is in flight is the client's feed's to know: it is not marked as done there."""

    def told(self, pieces: Sequence[Piece]) -> None:
        """Parts of answers came."""

    def failed(self, error: LlmbatchError) -> None:
        """The engine cannot be had: nothing that was asked is answered any more, and this client takes part no more."""

    def heard(self, ready: EngineReady) -> None:
        """The engine is up."""


@dataclass(frozen=True, slots=True)
class Account:
    """What engines did: tokens by their own count, seconds, deaths."""

    usage: Usage = field(default_factory=Usage)
    busy: float = 0.0
    ready: float = 0.0
    deaths: int = 0
    start: float | None = None  # seconds that the last start took

    @classmethod
    def of(cls, driver: Driver) -> Account:
        return cls(driver.counts(), driver.busy_seconds, driver.ready_seconds, driver.deaths, driver.start_seconds)

    def __add__(self, later: Account) -> Account:
        start = self.start if later.start is None else later.start
        return Account(
            self.usage + later.usage,
            self.busy + later.busy,
            self.ready + later.ready,
            self.deaths + later.deaths,
            start,
        )


class Sharing(Protocol):
    """What a share needs of the engine, see ``SharedEngine``."""

    @property
    def info(self) -> EngineInfo | None: ...

    @property
    def state(self) -> Literal["down", "starting", "up"]: ...

    @property
    def account(self) -> Account: ...

    def attach(
        self, client: Client, feed: Feed, *, weight: float = 1.0, priority: int = 0, urgent: bool = False
    ) -> int: ...

    def detach(self, number: int) -> None: ...

    def need(self) -> None: ...

    def wait_ready(self, given_up: Callable[[], bool]) -> EngineInfo: ...

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None: ...


class Share:
    """Implements ``SharedDriver`` and ``Client``: the shared engine as one run has it. ``stream`` is driven by the run's thread."""

    def __init__(self, shared: Sharing, name: str, weight: float, priority: int) -> None:
        self._shared = shared
        self._name = name
        self._weight = weight
        self._priority = priority
        self._tell: Watcher = lambda _: None
        self._before = shared.account
        self._was_up = shared.state == "up"
        self._needed = threading.Event()
        self._stopped = False
        self._feed: Feed | None = None
        self._number: int | None = None
        self._lock = threading.Lock()  # for what the engine's threads give
        self._answers: deque[Outcome] = deque()
        self._news: deque[EngineReady] = deque()
        self._trouble: LlmbatchError | None = None
        self._usage = Usage()

    def hear(self, tell: Watcher) -> None:
        self._tell = tell

    @property
    def info(self) -> EngineInfo | None:
        return self._shared.info

    @property
    def needed(self) -> bool:
        return self._needed.is_set()

    @property
    def starting(self) -> bool:
        return self.needed and self._shared.state == "starting"

    @property
    def start_seconds(self) -> float | None:
        """0 where it was up already."""
        return 0.0 if self._was_up else self._shared.account.start

    @property
    def deaths(self) -> int:
        return self._shared.account.deaths - self._before.deaths

    @property
    def busy_seconds(self) -> float:
        return self._shared.account.busy - self._before.busy

    @property
    def ready_seconds(self) -> float:
        return self._shared.account.ready - self._before.ready

    def need(self) -> None:
        if not self._needed.is_set():
            self._needed.set()
            self._shared.need()

    def wait_ready(self) -> EngineInfo:
        self.need()
        return self._shared.wait_ready(lambda: self._stopped)

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._shared.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._number is None:
            self._feed = feed
            self._number = self._shared.attach(self, feed, weight=self._weight, priority=self._priority)
        while True:
            with self._lock:
                answers, self._answers = list(self._answers), deque()
                news, self._news = self._news, deque()
                trouble = self._trouble
            for event in news:
                self._tell(event)
            if answers:
                in_flight = feed.in_flight  # what was given up may have been on its way
                answers = [outcome for outcome in answers if outcome.key in in_flight]
                feed.done_all([outcome.key for outcome in answers])
                yield answers
                continue
            if trouble is not None:
                self._number = None
                raise EngineError(f"{self._name}: {trouble}") from trouble
            if feed.finished:
                return
            yield []
            feed.doze(_LOOK_SECONDS)

    def abort(self) -> None:
        """As a ``Driver``. What comes of it all the same is another share's, which nobody has."""
        if self._number is not None and self._feed is not None:
            self._shared.detach(self._number)
            with self._lock:
                self._answers.clear()
            self._number = self._shared.attach(self, self._feed, weight=self._weight, priority=self._priority)

    def stop(self) -> None:
        """The run is over; the engine goes on."""
        self._stopped = True
        number, self._number = self._number, None
        if number is not None:
            self._shared.detach(number)

    def counts(self) -> Usage:
        """Tokens of the answers that this run had."""
        return self._usage

    def replicas(self) -> tuple[Replica, ...]:
        """Those are not this run's alone."""
        return ()

    def idle_share(self) -> float:
        return idle_share(self)

    def speculation(self) -> None:
        """What was guessed was guessed for all."""

    # by the engine's threads

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            self._answers.extend(outcomes)
            for outcome in outcomes:
                if isinstance(outcome, Completion):
                    self._usage = self._usage + outcome.usage
        self._wake()

    def told(self, pieces: Sequence[Piece]) -> None:
        """A run asks for none."""

    def failed(self, error: LlmbatchError) -> None:
        with self._lock:
            self._trouble = error
        self._wake()

    def heard(self, ready: EngineReady) -> None:
        with self._lock:
            self._news.append(ready)
        self._wake()

    def _wake(self) -> None:
        if self._feed is not None:
            self._feed.wake()


__all__ = ["Account", "Client", "Share", "Sharing"]
