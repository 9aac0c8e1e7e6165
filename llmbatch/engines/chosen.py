"""A driver's settings in, and what may choose better ones; a driver of whatever was chosen, out.

The choice is made when there is work for an engine, once, and may be of another number of engines: so what drives them is put
together only then. Until then what the first settings make is there for its tokenizer, and is never started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from llmbatch.core.events import Replica
from llmbatch.core.types import Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import Driver, EngineInfo, Speculation
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.supervised import Cancelled

_PATIENCE_SECONDS = 0.02  # between two looks while nothing has needed an engine yet

Choose = Callable[[EngineSettings], EngineSettings]


class Chosen:
    """Implements ``Driver``. ``drive`` puts together what drives the engines of some settings."""

    def __init__(self, drive: Callable[[EngineSettings], Driver], settings: EngineSettings, choose: Choose) -> None:
        self._drive = drive
        self._settings = settings
        self._choose = choose
        self._driver = drive(settings)
        self._needed = threading.Event()
        self._done = threading.Event()  # it is chosen, or will not be
        self._is_chosen = False
        self._choosing = False
        self._stopped = False

    @property
    def info(self) -> EngineInfo | None:
        return self._driver.info

    @property
    def needed(self) -> bool:
        return self._needed.is_set()

    @property
    def starting(self) -> bool:
        return self._choosing or self._driver.starting

    @property
    def start_seconds(self) -> float | None:
        return self._driver.start_seconds

    @property
    def deaths(self) -> int:
        return self._driver.deaths

    @property
    def busy_seconds(self) -> float:
        return self._driver.busy_seconds

    @property
    def ready_seconds(self) -> float:
        return self._driver.ready_seconds

    def need(self) -> None:
        if not self._needed.is_set():
            self._needed.set()

    def wait_ready(self) -> EngineInfo:
        self.need()
        self._done.wait()
        if self._stopped:
            raise Cancelled
        return self._driver.wait_ready()

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._driver.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        while not self._needed.wait(_PATIENCE_SECONDS):
            yield []  # the caller may find that the run is to stop, or that nothing is to be asked
            if feed.finished:
                return
        if not self._is_chosen:
            self._make_the_choice()
        self._driver.need()
        self._done.set()
        yield from self._driver.stream(feed)

    def abort(self) -> None:
        self._driver.abort()

    def stop(self) -> None:
        self._stopped = self._stopped or not self._is_chosen
        self._driver.stop()
        self._done.set()

    def counts(self) -> Usage:
        return self._driver.counts()

    def replicas(self) -> tuple[Replica, ...]:
        return self._driver.replicas()

    def idle_share(self) -> float:
        return self._driver.idle_share()

    def speculation(self) -> Speculation | None:
        return self._driver.speculation()

    def _make_the_choice(self) -> None:
        """Done in the thread that drives, which may be interrupted in it."""
        self._choosing = True
        try:
            chosen = self._choose(self._settings)
        finally:
            self._choosing = False
        if chosen != self._settings:
            before, self._driver = self._driver, self._drive(chosen)
            before.stop()
        self._is_chosen = True


__all__ = ["Choose", "Chosen"]
