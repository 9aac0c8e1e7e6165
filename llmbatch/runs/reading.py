"""Rows in, planned windows out, one by one; ``ReadAhead`` takes them in a thread of its own, ahead of the engine.

A window is read, rendered and tokenized here, what its journal already holds is replayed, and the rest is planned. Rows that need
no engine (malformed, impossible to render, too long) get their record at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from llmbatch.core.errors import InputChanged, JobError
from llmbatch.core.types import Completion, Cursor, FailureKind, Outcome, Refusal, Request, Row, Status
from llmbatch.engines.base import Driver
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.input import input_digest
from llmbatch.folder.journal import Replay, outcome_entry
from llmbatch.folder.parts import Parts
from llmbatch.folder.records import part_lines, record_on
from llmbatch.job.prepare import Preparer, capacity_of
from llmbatch.job.run_settings import RunSettings
from llmbatch.plan.window import PlanSettings
from llmbatch.programs.work import Work
from llmbatch.runs.pacing import Pacing
from llmbatch.runs.window import OpenWindow
from llmbatch.sources.base import Source
from llmbatch.sources.reader import Reader, again

_MANY = 100  # rows of a first window that all fail, before that is said in place of going on

Cached = Callable[[Iterable[bytes]], dict[bytes, Completion]]
"""Digests of requests -> the answers of earlier runs, for those that have one."""


@dataclass(slots=True)
class Resume:
    """What earlier sessions left: the windows that are sealed, and those with a journal. By number."""

    sealed: dict[int, Bounds] = field(default_factory=dict)
    journals: dict[int, Bounds] = field(default_factory=dict)

    @property
    def last(self) -> Bounds | None:
        """The last window that is known."""
        known = {**self.sealed, **self.journals}
        return known[max(known)] if known else None


class Extent(NamedTuple):
    """How far a new window goes: up to the row with the index ``stop``, full or not, or else over at most so many ``rows``."""

    stop: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads one input in windows. ``rows`` are the only indexes to be run, None for all; ``cached`` knows earlier runs' answers.

    ``in_blocks``: they stand together in blocks, and no window goes beyond one. ``governor`` says how many rows are needed, None:
    all.
    """

    source: Source
    prepare: Preparer
    driver: Driver
    parts: Parts
    run: RunSettings
    plan: PlanSettings
    rows: Container[int] | None = None
    in_blocks: bool = False
    cached: Cached | None = None
    governor: Pacing | None = None

    def windows(self, resume: Resume) -> Iterator[OpenWindow]:
        """Every window that is not sealed, in order, planned and with its journal open.

        Where the input fails half-way the rows before still come, and then ``ReadError`` is raised.
        """
        reader = Reader(self.source)
        number, start = 0, Cursor(0)
        # the last row of a window at whose end the input ended: what comes after it was not there then
        after: Cursor | None = None
        starts = {known: bounds.start.index for known, bounds in (*resume.sealed.items(), *resume.journals.items())}
        while True:
            if number in resume.sealed:
                bounds = resume.sealed[number]
                if self.governor is not None:
                    self.governor.sealed(map(record_on, part_lines([self.parts.path(number)])))
            else:
                replay = self.parts.reopen(number) if number in resume.journals else None
                if replay is not None:
                    opened = self._read_again(reader, replay)
                else:
                    # up to the next window that is known: the rows before it are those of the windows that were lost
                    limit = None
                    if later := [n for n in starts if n > number]:
                        first = start.index if after is None else after.index + 1
                        limit = self._share(first, starts[min(later)], min(later) - number)
                    room = None if self.governor is None or limit is not None else self.governor.room()
                    if room == 0:
                        return
                    read = self._read_new(reader, number, start, after, Extent(limit, room))
                    if read is None:
                        return
                    opened = read
                    if not number and self.rows is None and self.run.check_first:
                        _see_first(opened.window)
                    digest = partial(input_digest, self.source, opened.window.bounds)
                    opened.window.input_sha256 = again(digest)
                    self.parts.open(opened.window.bounds, opened.window.input_sha256)
                bounds = opened.window.bounds
                self._plan(opened)
                if self.governor is not None:
                    self.governor.begun(opened.window.order)
                yield opened.window
            number += 1
            start, after = (bounds.stop, None) if bounds.stop is not None else (bounds.last, bounds.last)

    def _read_new(
        self, reader: Reader, number: int, start: Cursor, after: Cursor | None, extent: Extent
    ) -> _Opened | None:
        """The next rows, as many as make a window within its ``extent``; ``None`` where there are none."""
        reader.seek(start)
        if after is not None and reader.next is not None and reader.next.cursor.index == after.index:
            reader.take()
        while self.rows is not None and reader.next is not None and reader.next.index not in self.rows:
            reader.take()
        if (first := reader.next) is None:
            if reader.failure is not None:
                raise reader.failure
            return None
        opened = _Opened(OpenWindow(Bounds(number, first.cursor, first.cursor, None, 0)))
        last = first.cursor
        full = room = self.prepare.room(self.run)
        if extent.rows is not None:
            room = room._replace(rows=min(room.rows, extent.rows))
        while (row := reader.next) is not None:
            ours = self.rows is None or row.index in self.rows
            if extent.stop is None:
                if room.is_full(len(opened.window.order), len(opened.requests), opened.size):
                    break
            elif row.cursor.index >= extent.stop:
                break
            if self.in_blocks and not ours:
                break
            reader.take()
            if ours:
                last = row.cursor
                self._take(opened, row)
        opened.window.share = full.share(len(opened.window.order), len(opened.requests), opened.size)
        stop = reader.next.cursor if reader.next is not None else None
        opened.window.bounds = Bounds(number, first.cursor, last, stop, len(opened.window.order))
        return opened

    def _share(self, first: int, end: int, windows: int) -> int:
        """Where the first of so many lost windows ends, whose rows have these indexes: each of them had one row at least."""
        if windows == 1:
            return end
        rows = [index for index in range(first, end) if self.rows is None or index in self.rows]
        if self.in_blocks and windows == 1 + sum(after != before + 1 for before, after in pairwise(rows)):
            return end  # each of them had one block
        return rows[len(rows) // windows]

    def _read_again(self, reader: Reader, replay: Replay) -> _Opened:
        """A window whose journal is there: the same rows, without the work that is done. Raises ``InputChanged``."""
        bounds = replay.bounds
        opened = _Opened(OpenWindow(bounds))
        window = opened.window
        window.input_sha256 = replay.input_sha256
        reader.seek(bounds.start)
        while len(window.order) < bounds.rows and (row := reader.next) is not None:
            reader.take()
            if self.rows is None or row.index in self.rows:
                line = replay.lines.get(row.index)
                record = replay.record(row.index)
                if line is None or record is None:
                    self._take(opened, row, replay.outcomes.get(row.index, ()))
                    continue
                window.order.append(row.index)
                window.lines[row.index] = line
                window.ledger.add(record, replay.reused.get(row.index))
        if reader.failure is not None:
            raise reader.failure
        window.share = self.prepare.room(self.run).share(len(window.order), len(opened.requests), opened.size)
        if len(window.order) < bounds.rows:
            raise InputChanged(
                f"the input ends before row {bounds.last.index}, and this run has read that far before. Restore it, or give "
                "another --output to begin anew"
            )
        return opened

    def _take(self, opened: _Opened, row: Row, outcomes: Sequence[Outcome] = ()) -> None:
        """Begin one row's work, and feed it what the journal knows of it."""
        window = opened.window
        window.order.append(row.index)
        work = self.prepare.begin(row)
        requests = work.start()
        if work.record is None:
            if self.cached is None:
                self.driver.need()  # it starts while the rest of the window is read; with a cache it may not be needed
            # an image may be another by now: a row that has one is asked from its start
            if outcomes and not any(request.prompt.images for request in requests):
                requests = self._replayed(work, requests, outcomes)
        if work.record is not None:
            window.finish(work.record, work.reused)
            return
        window.works[row.index] = work
        opened.requests.extend(requests)
        opened.size += self.prepare.size(row, work, requests)

    def _replayed(self, work: Work, requests: list[Request], outcomes: Sequence[Outcome]) -> list[Request]:
        """Feed a row's work what the journal knows of it; returns what is still to be asked."""
        self.driver.wait_ready()  # what follows a failure depends on the context length, as it did the first time
        owed = {request.key: request for request in requests}
        for outcome in outcomes:
            request = owed.get(outcome.key)
            if request is not None and not request.prompt.images:  # an image may be another by now, in a later step too
                del owed[request.key]
                owed.update((each.key, each) for each in work.feed(outcome))
        return list(owed.values())

    def _plan(self, opened: _Opened) -> None:
        """Tokenize a window's requests and put them in order; what cannot run is finished, and what the cache knows answered."""
        window = opened.window
        requests = self._tokenized(window, opened.requests)
        if self.cached is not None:
            requests = self._asked_anew(self.cached, window, requests)
        later: list[Request] = []  # what follows a refusal: it is planned with the rest
        too_long: list[str] = []
        while requests:
            capacity = capacity_of(self.driver.wait_ready())
            plan = self.prepare.plan(requests, capacity, last=window.bounds.stop is None)
            for position, failure in plan.too_long.items():
                later += self._refuse(window, Refusal(requests[position].key, failure))
            if not later:
                window.plan = replace(plan, notes=(*too_long, *plan.notes))
                window.requests = [requests[position] for position in (*plan.order, *plan.folded)]
                window.groups = {requests[position].key: group for position, group in plan.groups.items()}
                window.digests = {requests[position].key: digest for position, digest in plan.digests.items()}
                return
            too_long.append(f"prompts that are too long: {len(plan.too_long):,} (plan.overflow={self.plan.overflow})")
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
        skipped = first and refusal.failure.kind is FailureKind.TOO_LONG and self.plan.overflow == "skip"
        return _feed(window, work, refusal, skipped=skipped)


@dataclass(slots=True)
class _Opened:
    """A window that was read and rendered, and is not yet planned."""

    window: OpenWindow
    requests: list[Request] = field(default_factory=list)
    size: int = 0  # characters that its rows hold


def _see_first(window: OpenWindow) -> None:
    """Raises ``JobError`` where the input goes on behind a first window of which no row can be sent.

    Then the prompt, or the input, is not what was meant, and nobody wants millions of records that say so. Of a short input they
    are there at once.
    """
    worst = window.ledger.worst
    if (
        window.bounds.stop is None
        or worst is None
        or sum(window.ledger.by_failure.values()) < max(_MANY, len(window.order))
    ):
        return
    others = "" if worst.rows == len(window.order) else f", most of them for {worst.kind}"
    raise JobError(
        f"none of the first {len(window.order):,} rows can be sent to a model{others}: {worst.message}. Nothing was sent. If the "
        "rows behind them are worth it, --set run.check_first=false goes on with a record for each that says why"
    )


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
