"""Planned windows and an engine's outcomes in, sealed windows out: the loop of a run.

One thread (this one) drives the engine and settles what it answers. The reader's thread prepares windows ahead, the writer's
thread brings entries and parts to disk. Nothing here knows a format, a prompt, an engine or a terminal.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

from llmbatch.core.errors import ReadError, RunError, Stopped
from llmbatch.core.events import Note, Planned, Sealed, Watcher
from llmbatch.core.types import Outcome, Request
from llmbatch.engines.base import Driver
from llmbatch.engines.feed import Feed
from llmbatch.folder.journal import outcome_entry
from llmbatch.job.prepare import Prepared, Preparer
from llmbatch.job.run_settings import RunSettings
from llmbatch.programs.work import Work
from llmbatch.reuse.memory import Reuse
from llmbatch.runs.brakes import Brakes
from llmbatch.runs.budget import up_seconds
from llmbatch.runs.follow_up import FollowUp
from llmbatch.runs.meter import Meter
from llmbatch.runs.read_ahead import ReadAhead
from llmbatch.runs.row_messages import reused_in
from llmbatch.runs.row_workers import Answer, RowWorkers
from llmbatch.runs.window import OpenWindow
from llmbatch.runs.writer import Writer

_FLUSH_SECONDS = 0.1  # how long a finished row may wait for its journal
_TICK_SECONDS = 0.5
_LAST_SECONDS = 10.0  # that row workers get to judge what they were sent, when the run ends


class Elsewhere(NamedTuple):
    """Row workers; and the works of a window of theirs as its journal has them, once its worker is gone."""

    workers: RowWorkers
    works_of: Callable[[int], dict[int, Work]]


class Loop:
    """Runs the windows of one session to their end."""

    def __init__(
        self,
        windows: ReadAhead,
        prepare: Preparer,
        driver: Driver,
        writer: Writer,
        reuse: Reuse,
        brakes: Brakes,
        meter: Meter,
        settings: RunSettings,
        tell: Watcher,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._windows = windows
        self._elsewhere = elsewhere
        self._prepare = prepare
        self._driver = driver
        self._writer = writer
        self._reuse = reuse
        self._brakes = brakes
        self._meter = meter
        self._settings = settings
        self._tell = tell
        self._feed = Feed()
        self._follow_up = FollowUp(prepare, self._feed.wake)
        self._open: dict[int, OpenWindow] = {}
        self._complete: list[OpenWindow] = []  # not sealed yet
        self._window_of: dict[int, OpenWindow] = {}  # row index -> its window, for rows that are not finished
        self._unsettled: deque[Outcome] = deque()
        self._next_flush = self._next_tick = 0.0
        self._read_error: ReadError | None = None

    def steps(self) -> Generator[list[OpenWindow], None, None]:
        """Run; yields after each step of the engine the windows that were completed in it, already given to the writer.

        Raises ``Stopped``, ``TooManyFailures``, and what engine, source and writer raise; then all that finished is in the
        journals once the writer is closed. An input that fails half-way ends the run when the rows before are finished.
        """
        if self._elsewhere is not None:
            self._elsewhere.workers.start(self._feed.wake)
        self._windows.start(self._feed.wake)  # an engine with nothing to do waits in the feed
        try:
            yield self._take_windows(wait=0.0)
            while True:
                for outcomes in self._driver.stream(self._feed):
                    yield self._step(outcomes)
                if self._brakes.halted or not self._pending:
                    break
                self._look_after_clocks()
                self._wait_for_what_follows()
                self._settle()
                yield self._seal()
            self._tick()
            if self._brakes.halted:
                raise Stopped(f"stopped: {self._brakes.reason}")
            if self._read_error is not None:
                raise self._read_error
            self._see_that_all_is_answered()
            self._brakes.look(self._meter.ledger)
        finally:
            self._follow_up.close()
            try:
                self._hear_the_last()
            finally:
                for window in self._open.values():
                    self._writer.append(window)
                self._reuse.forget()  # else the next search for cyclic garbage would look at every answer

    def _step(self, outcomes: list[Outcome]) -> list[OpenWindow]:
        """What is done after each step of the engine."""
        self._unsettled.extend(outcomes)
        self._settle()
        complete = self._seal()
        busy = self._feed.busy or self._pending
        complete += self._take_windows(wait=0.0 if busy else _TICK_SECONDS)
        self._look_after_clocks()
        return complete

    def _take_windows(self, wait: float) -> list[OpenWindow]:
        """Take planned windows in while there is room; returns those that were complete at once."""
        complete: list[OpenWindow] = []
        while self._wait_for_room(wait) and not self._windows.ended and not self._brakes.halted:
            if self._feed.waiting > self._settings.window:
                break  # enough for a while: planning later windows late lets their plan know more
            try:
                window = self._windows.get(0.0)
            except ReadError as error:
                self._read_error = error
                self._tell(Note("error", f"{error}. The rows before that are finished, then the run stops"))
                break
            if window is None:
                break
            wait = 0.0
            self._admit(window)
            complete += self._seal()
        # what row workers judge later may be asked again: the feed stays open until nothing is on its way to them
        may_follow = self._pending or (self._elsewhere is not None and self._feed.busy)
        if self._windows.ended and not self._brakes.halted and not may_follow:
            self._feed.close()
        return complete

    def _wait_for_room(self, seconds: float) -> bool:
        """Whether one more window may be open, where need be after a wait.

        It may not where a slow disk has as many complete ones still to take.
        """
        if len(self._open) >= self._settings.windows_open and sum(window.share for window in self._open.values()) >= 1:
            return False  # windows of a slice may be small
        return self._writer.sealing < self._settings.windows_open or self._writer.wait_for_seal(seconds)

    def _admit(self, window: OpenWindow) -> None:
        bounds = window.bounds
        self._open[bounds.window] = window
        self._meter.opened(window)
        for index in window.unfinished:
            self._window_of[index] = window
        if self._elsewhere is not None:
            self._elsewhere.workers.admit(window)
        if window.complete:
            self._complete.append(window)
        if window.plan is not None:
            expected = sum(len(r.token_ids or ()) for r in window.requests[: window.plan.sent])
            self._tell(Planned(bounds.window, bounds.rows, window.plan.folded, expected, window.plan.notes))
        requests, window.requests = window.requests, []
        digests, window.digests = window.digests, []
        groups, window.groups = window.groups, {}
        self._feed.push(self._lead(zip(requests, digests, strict=True)), groups)
        self._settle()

    def _lead(self, requests: Iterable[tuple[Request, bytes | None]]) -> list[Request]:
        """Of requests those that are to be sent: they lead those that are equal to them.

        The others are waited for, or their outcome is known and is put to those that are to be settled.
        """
        sent: list[Request] = []
        for request, digest in requests:
            if digest is not None:
                known = self._reuse.known(request, digest)
                if known is not None:
                    self._unsettled.append(known)
                    continue
                if not self._reuse.lead(request, digest):
                    continue
            sent.append(request)
        return sent

    def _settle(self) -> None:
        """Give each outcome to its row's work: the row is finished, or more requests follow, which are sent."""
        while True:
            while self._unsettled:
                self._settle_one(self._unsettled.popleft())
            if self._elsewhere is not None and self._hear(self._elsewhere):
                continue
            if self._follow_up.pending:
                self._driver.need()  # where all answers so far came from the cache, it was not yet
            prepared = self._follow_up.prepared(self._driver.info)
            if prepared is None:
                return
            self._send(prepared)

    def _settle_one(self, outcome: Outcome) -> None:
        shared = self._reuse.settle(outcome)
        window = self._window_of[outcome.key.index]
        if window.elsewhere and self._elsewhere is not None:
            self._elsewhere.workers.add(window, outcome)
        else:
            self._prepare.observe(outcome)
            self._feed_work(outcome)
        if shared is not None:
            self._unsettled.extend(shared.outcomes)
            self._feed.push(shared.alone, first=True)

    def _feed_work(self, outcome: Outcome) -> None:
        index = outcome.key.index
        window = self._window_of[index]
        work = window.works[index]
        if following := work.feed(outcome):
            self._follow_up.add(following)
        if work.record is None:
            window.entries.append(outcome_entry(outcome))
            return
        self._meter.finished(window.finish(work.record, work.reused))
        self._is_finished(index, window)

    def _is_finished(self, index: int, window: OpenWindow) -> None:
        del self._window_of[index]
        if window.complete:
            self._complete.append(window)

    def _hear(self, elsewhere: Elsewhere) -> bool:
        """Send row workers their outcomes, and take what came of earlier ones; whether there is more to be settled."""
        workers = elsewhere.workers
        workers.send()
        for answer in workers.answers():
            self._take_answer(answer)
            if answer.asked:
                self._feed.push(self._lead(answer.asked), first=True)
        for lost in workers.lost():
            for window in lost.windows:
                self._take_back(window, elsewhere)
            for outcome in lost.outcomes:
                self._feed_work(outcome)
        return bool(self._unsettled)

    def _take_answer(self, answer: Answer) -> None:
        """Records and journal entries of a row worker's."""
        for came in answer.came:
            came.window.entries += came.entries
            came.window.ledger.merge(came.ledger)
            for index, line, reused in came.finished:
                came.window.take(index, line, None if reused is None else reused_in(reused))
                del self._window_of[index]
            if came.finished and came.window.complete:
                self._complete.append(came.window)

    def _take_back(self, window: OpenWindow, elsewhere: Elsewhere) -> None:
        """Have the works of a window here, whose worker is gone: they are made anew, as far as its journal says they had come.

        All that they ask from there on was asked already.
        """
        self._writer.append(window)
        self._writer.flush()
        window.works = elsewhere.works_of(window.bounds.window)

    def _send(self, prepared: Prepared) -> None:
        """Let what follows in the rows' work go before the rows that wait: its prefix is still cached."""
        for refusal in prepared.refused:
            self._feed_work(refusal)
        # of a row that a refusal has just finished nothing more is sent
        ready = [request for request in prepared.ready if request.key.index in self._window_of]
        self._feed.push(self._lead(zip(ready, self._prepare.digests(ready), strict=True)), first=True)

    def _seal(self) -> list[OpenWindow]:
        """Give the windows that are complete to the writer; returns them."""
        complete, self._complete = self._complete, []
        for window in complete:
            del self._open[window.bounds.window]
            if self._elsewhere is not None:
                self._elsewhere.workers.seal(window)
            self._meter.sealed(window)
            self._writer.seal(window)
            self._tell(Sealed(window.bounds.window, window.bounds.rows))
        return complete

    def _look_after_clocks(self) -> None:
        now = time.monotonic()
        if now >= self._next_flush:
            self._next_flush = now + _FLUSH_SECONDS
            for window in self._open.values():
                self._writer.append(window)
            self._writer.check()
        if now >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            self._tick()
            self._check_brakes()
        elif self._driver.info is None and self._driver.needed:
            self._check_brakes()  # before a model is loaded for a run whose budget is used up
        if self._brakes.reason is not None:
            self._brakes.wind_down(len(self._feed.in_flight), self._feed.halt, self._give_up)

    def _check_brakes(self) -> None:
        self._brakes.look(self._meter.ledger)
        if self._driver.needed:  # what needs no engine costs nothing, and may still be finished
            self._brakes.spend(self._driver.counts(), up_seconds(self._driver))

    def _give_up(self) -> None:
        self._driver.abort()
        self._feed.recall()

    @property
    def _judging(self) -> bool:
        """Whether row workers have outcomes of which nothing was heard yet."""
        return self._elsewhere is not None and self._elsewhere.workers.pending

    @property
    def _pending(self) -> bool:
        """Whether more requests may follow from what was answered."""
        return self._follow_up.pending or self._judging

    def _wait_for_what_follows(self) -> None:
        self._follow_up.wait()
        if self._elsewhere is not None and self._judging:
            self._elsewhere.workers.wait(_TICK_SECONDS)

    def _hear_the_last(self) -> None:
        """However the run ends, what row workers were sent is not asked again, where they soon say what came of it."""
        if self._elsewhere is not None:
            for answer in self._elsewhere.workers.last_answers(_LAST_SECONDS):
                self._take_answer(answer)

    def _tick(self) -> None:
        self._meter.tick(in_flight=len(self._feed.in_flight), waiting=self._feed.waiting)

    def _see_that_all_is_answered(self) -> None:
        """The last line of defence of the promise that no row is lost: better no results than too few."""
        for window in self._open.values():
            raise RunError(
                f"rows {sorted(window.unfinished)[:5]} got no answer, and nothing more is asked: this is a bug of llmbatch, please "
                "report it. What is finished is kept"
            )
