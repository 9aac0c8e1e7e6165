"""Requests that were in flight when an engine died in; which of them are suspects out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from llmbatch.core.types import Outcome, Request, RequestKey

DEATHS_TO_SUSPECT = 2


class DeathsOf:
    """At how many deaths each request was in flight, until it is answered. Safe to use from the threads of several engines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[RequestKey] = Counter()

    def add(self, requests: Iterable[Request]) -> None:
        with self._lock:
            self._counts.update(request.key for request in requests)

    def of(self, request: Request) -> int:
        return self._counts[request.key]

    def acquit(self, outcomes: Iterable[Outcome]) -> None:
        """Requests that have an outcome are suspects no more."""
        if self._counts:
            with self._lock:
                for outcome in outcomes:
                    self._counts.pop(outcome.key, None)

    @property
    def searching(self) -> bool:
        """Whether there are suspects."""
        with self._lock:
            return any(deaths >= DEATHS_TO_SUSPECT for deaths in self._counts.values())


__all__ = ["DEATHS_TO_SUSPECT", "DeathsOf"]
