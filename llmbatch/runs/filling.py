"""The rows of one window in; the same window planned, with the records of rows that need no engine, out.

Rows are rendered and tokenized here, what a journal already holds of them is replayed, and the rest is planned. A row that needs no
engine (malformed, impossible to render, too long) gets its record at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from llmbatch.core.types import Completion, Cursor, FailureKind, Outcome, Refusal, Request, Row, Status
from llmbatch.engines.base import EngineInfo
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import outcome_entry
from llmbatch.job.prepare import Preparer, Room, capacity_of
from llmbatch.plan.window import PlanSettings
from llmbatch.programs.work import Work
from llmbatch.runs.window import OpenWindow, Plan

Cached = Callable[[Iterable[bytes]], dict[bytes, Completion]]
"""Digests of requests -> the answers of earlier runs, for those that have one."""


class Readiness(Protocol):
    """What is to be known of the engine here: a ``Driver`` is one."""

    def need(self) -> None:
        """There is work for it."""

    def wait_ready(self) -> EngineInfo:
        """There is work for it; block until it is up. Raises ``Cancelled`` where it was stopped instead."""


@dataclass(slots=True)
class Opened:
    """A window that was read and rendered, and is not yet planned."""

    window: OpenWindow
    requests: list[Request] = field(default_factory=list)
    size: int = 0  # characters that its rows hold

    def is_full(self, room: Room) -> bool:
        """Whether it takes no more rows."""
        return room.is_full(len(self.window.order), len(self.requests), self.size)

    def share_of(self, room: Room) -> float:
        """How much of a full window it is."""
        return room.share(len(self.window.order), len(self.requests), self.size)


@dataclass(frozen=True, slots=True)
class Filling:
    """Fills windows with the rows of one job. ``cached`` knows earlier runs' answers."""

    prepare: Preparer
    engine: Readiness
    plan_settings: PlanSettings
    cached: Cached | None = None

    def take(self, opened: Opened, row: Row, outcomes: Sequence[Outcome] = (), *, same: bool = False) -> None:
        """Begin one row's work, and feed it what the journal knows of it. ``same``: that is of this session."""
        window = opened.window
        window.order.append(row.index)
        work = self.prepare.begin(row)
        requests = work.start()
        if work.record is None:
            if self.cached is None:
                self.engine.need()  # it starts while the rest of the window is read; with a cache it may not be needed
            # an image may be another by now: a row that has one is asked from its start
            if outcomes and (same or not any(request.prompt.images for request in requests)):
                requests = self._replayed(work, requests, outcomes, same=same)
        if work.record is not None:
            window.finish(work.record, work.reused)
            return
        window.works[row.index] = work
        opened.requests.extend(requests)
        opened.size += self.prepare.size(row, work, requests)

    def windows(self, rows: Iterable[Row], stop: Cursor | None, room: Room) -> Iterator[Opened]:
        """Rows that follow one another, in windows that are not planned and have no number: one, unless they hold more than it may.

        ``stop``: where the next row is.
        """
        opened: Opened | None = None
        for row in rows:
            if opened is not None and opened.is_full(room):
                yield _closed(opened, row.cursor, room)
                opened = None
            if opened is None:
                opened = Opened(OpenWindow(Bounds(0, row.cursor, row.cursor, None, 0)))
            opened.window.bounds = opened.window.bounds._replace(last=row.cursor)
            self.take(opened, row)
        if opened is not None:
            yield _closed(opened, stop, room)

    def _replayed(
        self, work: Work, requests: list[Request], outcomes: Sequence[Outcome], *, same: bool
    ) -> list[Request]:
        """Feed a row's work what the journal knows of it; returns what is still to be asked."""
        self.engine.wait_ready()  # what follows a failure depends on the context length, as it did the first time
        owed = {request.key: request for request in requests}
        for outcome in outcomes:
            request = owed.get(outcome.key)
            if request is not None and (
                same or not request.prompt.images
            ):  # an image may be another by now, in a later step too
                del owed[request.key]
                owed.update((each.key, each) for each in work.feed(outcome))
        return list(owed.values())

    def plan(self, opened: Opened) -> None:
        """Tokenize a window's requests and put them in order; what cannot run is finished, and what the cache knows answered."""
        window = opened.window
        requests = self._tokenized(window, opened.requests)
        if self.cached is not None:
            requests = self._asked_anew(self.cached, window, requests)
        later: list[Request] = []  # what follows a refusal: it is planned with the rest
        too_long: list[str] = []
        while requests:
            capacity = capacity_of(self.engine.wait_ready())
            plan = self.prepare.plan(requests, capacity, last=window.bounds.stop is None)
            for position, failure in plan.too_long.items():
                later += self._refuse(window, Refusal(requests[position].key, failure))
            if not later:
                window.plan = Plan(len(plan.order), len(plan.folded), (*too_long, *plan.notes))
                window.requests = [requests[position] for position in (*plan.order, *plan.folded)]
                window.groups = {requests[position].key: group for position, group in plan.groups.items()}
                window.digests = [plan.digests.get(position) for position in (*plan.order, *plan.folded)]
                return
            too_long.append(
                f"prompts that are too long: {len(plan.too_long):,} (plan.overflow={self.plan_settings.overflow})"
            )
            requests = [request for position, request in enumerate(requests) if position not in plan.too_long]
            later = self._tokenized(window, later)
            requests += later if self.cached is None else self._asked_anew(self.cached, window, later)
            later = []

    def _tokenized(self, window: OpenWindow, requests: Sequence[Request]) -> list[Request]:
        """The requests with their token ids. Those that have none are refused; what then follows in their rows is among them."""
        found: list[Request] = []
        while requests:
            prepared = self.prepare.tokenized(requests)
            found += prepared.ready
            requests = [request for refusal in prepared.refused for request in self._refuse(window, refusal)]
        return found

    def _asked_anew(self, cached: Cached, window: OpenWindow, requests: list[Request]) -> list[Request]:
        """Give the answers that the cache has to their rows; returns what it does not know, of what then follows too."""
        unknown: list[Request] = []
        while requests:
            digests = self.prepare.digests(requests)
            answers = cached(digest for digest in digests if digest is not None)
            following: list[Request] = []
            for request, digest in zip(requests, digests, strict=True):
                answer = answers.get(digest) if digest is not None else None
                work = window.works.get(request.key.index)
                if answer is None or work is None:
                    unknown.append(request)
                else:
                    following += _feed(window, work, replace(answer, key=request.key))
            requests = self._tokenized(window, following)
        return [r for r in unknown if r.key.index in window.works]

    def _refuse(self, window: OpenWindow, refusal: Refusal) -> list[Request]:
        """Tell a row's work that a request of it cannot be sent; returns what follows in it."""
        key = refusal.key
        work = window.works.get(key.index)
        if work is None:
            return []  # another request of the same row was refused before, and that was its end
        first = key.step == 0 and key.attempt == 1
        skipped = first and refusal.failure.kind is FailureKind.TOO_LONG and self.plan_settings.overflow == "skip"
        return _feed(window, work, refusal, skipped=skipped)


def _closed(opened: Opened, stop: Cursor | None, room: Room) -> Opened:
    window = opened.window
    window.bounds = window.bounds._replace(stop=stop, rows=len(window.order))
    window.share = opened.share_of(room)
    return opened


def _feed(window: OpenWindow, work: Work, outcome: Outcome, *, skipped: bool = False) -> list[Request]:
    """Feed an outcome that did not come from the engine to a row's work; returns what follows.

    ``skipped``: a record that comes of it says so.
    """
    following = work.feed(outcome)
    if work.record is not None:
        window.finish(replace(work.record, status=Status.SKIPPED) if skipped else work.record, work.reused)
    else:
        window.entries.append(outcome_entry(outcome))
    return following


__all__ = ["Cached", "Filling", "Opened", "Readiness"]
