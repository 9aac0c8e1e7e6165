"""Several engines in; one engine that has the room of all of them out, for a trial: where one of them fails, it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from llmbatch.core.errors import EngineDied, EngineError
from llmbatch.core.events import Event, Note
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import Drafts, EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.replicas import MakeOne, Replicas
from llmbatch.engines.settings import EngineSettings

_AHEAD = 2  # times what the engines take, so that none waits for its next request


class SideBySide:
    """Implements ``Engine``, over replicas that are not made anew when they die."""

    def __init__(self, make: MakeOne, settings: EngineSettings) -> None:
        self._driver = Replicas(make, settings.model_copy(update={"restarts": 0}), self._hear)
        self._trouble: str | None = None

    def start(self) -> EngineInfo:
        feed = Feed()
        self._driver.need()
        for _ in self._driver.stream(feed):
            states = {replica.state for replica in self._driver.replicas()}
            if states == {"up"} or self._trouble is not None:
                feed.close()
        if self._trouble is not None or self._driver.info is None:
            raise EngineError(self._trouble or "its engines did not start")
        return self._driver.info

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """Whoever makes the engines says it to them."""

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._driver.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        info = self._driver.info
        if info is None:
            raise EngineError("the engines have not been started")
        room = _AHEAD * info.engines * (info.in_flight or 2 * info.max_num_seqs)
        inner = Feed()
        inner.push(feed.take(room, sys.maxsize))
        for outcomes in self._driver.stream(inner):
            yield outcomes
            if self._trouble is not None:
                raise EngineDied(self._trouble)
            inner.push(feed.take(room - len(inner.in_flight) - inner.waiting, sys.maxsize))
            if feed.finished:
                inner.close()

    def abort(self) -> None:
        self._driver.abort()

    def stop(self) -> None:
        self._driver.stop()

    def counts(self) -> Usage:
        return self._driver.counts()

    def busy(self) -> float:
        return self._driver.busy_seconds

    def drafts(self) -> Drafts:
        speculation = self._driver.speculation()
        return Drafts() if speculation is None else speculation.drafts

    def _hear(self, event: Event) -> None:
        """What is a warning in a run, where the others go on, is the end here."""
        if isinstance(event, Note) and event.level != "info" and self._trouble is None:
            self._trouble = event.message


__all__ = ["SideBySide"]
