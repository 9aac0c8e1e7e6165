"""Planned windows and an engine's outcomes in, sealed windows out: the loop of a run.

One thread (this one) drives the engine and settles what it answers. The reader's thread prepares windows ahead, the writer's
thread brings entries and parts to disk. Nothing here knows a format, a prompt, an engine or a terminal.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace

from llmbatch.core.demand import Demands
from llmbatch.core.digest import Digests, pack
from llmbatch.core.errors import ReadError, RunError, Stopped, TooManyFailures
from llmbatch.core.events import Note, Planned, Sealed, Snapshot, Watcher
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Completion, Failure, Outcome, Record, Refusal, Request, Status, Usage
from llmbatch.engines.feed import Feed
from llmbatch.engines.supervised import SupervisedEngine
from llmbatch.folder.journal import outcome_entry
from llmbatch.job.run_settings import RunSettings
from llmbatch.plan.fit import misfit
from llmbatch.programs.work import Work
from llmbatch.reuse.memory import Reuse
from llmbatch.run.budget import Budget
from llmbatch.run.read_ahead import ReadAhead
from llmbatch.run.reading import Front
from llmbatch.run.window import OpenWindow
from llmbatch.run.writer import Writer

_FLUSH_SECONDS = 0.1  # how long a finished row may wait for its journal
_TICK_SECONDS = 0.5
_RATE_SECONDS = 30.0


@dataclass(slots=True)
class Stop:
    """The wish to stop, and why. Set by a signal handler; seen by the loop between two steps."""

    reason: str | None = None
    asked: bool = False  # by a person: asking again ends the run at once


class Loop:
    """Runs the windows of one session to their end. ``ledger`` counts the records of all sessions.

    It begins with that of the sealed windows, and with those of the windows (by number) of which only journals are there.
    """

    def __init__(
        self,
        front: Front,
        ahead: ReadAhead,
        engine: SupervisedEngine,
        writer: Writer,
        *,
        settings: RunSettings,
        budget: Budget,
        ledger: Ledger,
        journals: Mapping[int, Ledger],
        tell: Watcher,
        stop: Stop,
        reuse: Reuse,
    ) -> None:
        self._front = front
        self._ahead = ahead
        self._engine = engine
        self._writer = writer
        self._settings = settings
        self._budget = budget
        self._tell = tell
        self._stop = stop
        self._reuse = reuse
        self._feed = Feed()
        ahead.ready = self._feed.wake  # an engine with nothing to do waits in the feed
        self._open: dict[int, OpenWindow] = {}
        self._complete: list[OpenWindow] = []  # not sealed yet
        self._unsettled: deque[Outcome] = deque()
        self._window_of: dict[int, OpenWindow] = {}  # row index -> its window, for rows that are not finished
        self._sealed_ledger = ledger
        self._journals = dict(journals)  # the accounts of windows that are not read again yet
        self._started = time.monotonic()
        self._next_flush = self._next_tick = 0.0
        self._halted_at: float | None = None
        self._rates: deque[tuple[float, int, Usage]] = deque()
        self._last_row: OpenWindow | None = None
        self._read_error: ReadError | None = None

    def steps(self) -> Generator[list[OpenWindow], None, None]:
        """Run; yields after each step of the engine the windows that were completed in it, already given to the writer.

        Raises ``Stopped``, ``TooManyFailures``, and what engine, source and writer raise; then all that finished is in the
        journals once the writer is closed. An input that fails half-way ends the run when the rows before are finished.
        """
        try:
            yield self._feed_more(wait=0.0)
            for outcomes in self._engine.stream(self._feed):
                for outcome in outcomes:
                    self._unsettled.append(outcome)
                    self._settle()
                complete = self._seal()
                complete += self._feed_more(wait=0.0 if self._feed.in_flight or self._feed.waiting else _TICK_SECONDS)
                self._look_after_clocks()
                yield complete
            self._tick(time.monotonic())
            if self._halted_at is not None:
                raise Stopped(f"stopped: {self._stop.reason}")
            if self._read_error is not None:
                raise self._read_error
            self._see_that_all_is_answered()
        finally:
            for window in self._open.values():
                self._writer.append(window)

    @property
    def ledger(self) -> Ledger:
        """The account of every record so far: those of sealed and of open windows."""
        total = Ledger()
        total.merge(self._sealed_ledger)
        for left in self._journals.values():
            total.merge(left)
        for window in self._open.values():
            total.merge(window.ledger)
        return total

    def _feed_more(self, wait: float) -> list[OpenWindow]:
        """Take planned windows in while there is room; returns those that were complete at once."""
        complete: list[OpenWindow] = []
        while self._has_room(wait) and not self._ahead.ended and self._halted_at is None:
            if self._feed.waiting > self._settings.window:
                break  # enough for a while: planning later windows late lets their plan know more
            try:
                window = self._ahead.get(0.0)
            except ReadError as error:
                self._read_error = error
                self._tell(Note("error", f"{error}. The rows before that are finished, then the run stops"))
                break
            if window is None:
                break
            wait = 0.0
            self._admit(window)
            complete += self._seal()
        if self._ahead.ended and self._halted_at is None:
            self._feed.close()
        return complete

    def _has_room(self, wait: float) -> bool:
        """Whether one more window may be open: not where a slow disk has as many complete ones still to take."""
        if len(self._open) >= self._settings.windows_open:
            return False
        return self._writer.sealing < self._settings.windows_open or self._writer.sealed_one(wait)

    def _see_that_all_is_answered(self) -> None:
        """The last line of defence of the promise that no row is lost: better no results than too few."""
        for window in self._open.values():
            raise RunError(
                f"rows {sorted(window.works)[:5]} got no answer, and nothing more is asked: this is a bug of llmbatch, please "
                "report it. What is finished is kept"
            )

    def _admit(self, window: OpenWindow) -> None:
        bounds = window.bounds
        self._open[bounds.window] = window
        self._journals.pop(bounds.window, None)
        self._last_row = window
        for index in window.works:
            self._window_of[index] = window
        if window.complete:
            self._complete.append(window)
        if window.plan is not None:
            sent = window.requests[: len(window.plan.order)]
            expected = sum(len(r.token_ids or ()) for r in sent)
            self._tell(Planned(bounds.window, bounds.rows, len(window.plan.folded), expected, window.plan.notes))
        requests, window.requests = window.requests, []
        digests, window.digests = window.digests, {}
        self._feed.push(self._asked((request, digests.get(request.key)) for request in requests))
        self._settle()

    def _asked(self, requests: Iterable[tuple[Request, bytes | None]]) -> list[Request]:
        """Those of the requests that are to be sent; the others' outcomes are known and to be settled, or waited for."""
        sent: list[Request] = []
        for request, digest in requests:
            if digest is not None:
                known = self._reuse.known(request, digest)
                if known is not None:
                    self._unsettled.append(known)
                    continue
                if not self._reuse.leads(request, digest):
                    continue
            sent.append(request)
        return sent

    def _settle(self) -> None:
        """Give each outcome to its row's work: the row is finished, or more requests follow."""
        while self._unsettled:
            outcome = self._unsettled.popleft()
            shared = self._reuse.settle(outcome)
            if isinstance(outcome, Completion) and outcome.reused_from is None:
                self._front.lengths.observe(
                    outcome.usage.prompt_tokens, outcome.usage.completion_tokens, cut=outcome.finish_reason == "length"
                )
            window = self._window_of[outcome.key.index]
            work = window.works[outcome.key.index]
            more = work.feed(outcome)
            if work.record is None:
                window.entries.append(outcome_entry(outcome))
                if more:
                    self._send(window, work, more)
            if work.record is not None:
                self._finish(window, work, work.record)
            if shared is not None:
                self._unsettled.extend(shared.outcomes)
                self._feed.push(shared.alone, first=True)

    def _send(self, window: OpenWindow, work: Work, requests: list[Request]) -> None:
        """Tokenize what follows in a row's work and let it go before the rows that wait: its prefix is still cached."""
        info = self._engine.info
        unknown = [r for r in requests if r.token_ids is None]
        ids_of = dict(zip((r.key for r in unknown), self._engine.tokenize([r.prompt for r in unknown]), strict=True))
        ready: list[Request] = []
        while requests:
            request = requests.pop(0)
            ids = ids_of.get(request.key, request.token_ids)
            failure: Failure | None = ids if isinstance(ids, Failure) else None
            if failure is None and info is not None and ids is not None and not isinstance(ids, Failure):
                # as the planner would say it: a resumed run gives the same record
                failure = misfit(len(ids) + len(request.partial), Demands().of(request), info.context_length)
                if failure is None:
                    ready.append(replace(request, token_ids=ids))
            if failure is not None:
                refusal = Refusal(request.key, failure)
                requests.extend(work.feed(refusal))
                if work.record is None:
                    window.entries.append(outcome_entry(refusal))
        folder = Digests()
        self._feed.push(self._asked((request, self._digest(request, folder)) for request in ready), first=True)

    def _digest(self, request: Request, folder: Digests) -> bytes | None:
        packed = pack(request) if self._front.plan.fold else None
        return None if packed is None else folder.digest(request, packed)

    def _finish(self, window: OpenWindow, work: Work, record: Record) -> None:
        kept = self._front.keep(work.row)
        window.finish(record if kept is None else replace(record, input=kept), work.reused)
        del self._window_of[record.index]
        if window.complete:
            self._complete.append(window)

    def _seal(self) -> list[OpenWindow]:
        """Give the windows that are complete to the writer; returns them."""
        complete, self._complete = self._complete, []
        for window in complete:
            del self._open[window.bounds.window]
            self._sealed_ledger.merge(window.ledger)
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
            self._tick(now)
            self._check_budgets(now)
        elif self._engine.info is None and self._engine.needed:
            self._check_budgets(now)  # before a model is loaded for a run whose budget is used up
        if self._stop.reason is not None:
            self._wind_down(now)

    def _wind_down(self, now: float) -> None:
        """Stopping: nothing new is sent, what is in flight gets its grace, then it is given up."""
        if self._halted_at is None:
            self._halted_at = now
            self._feed.halt()
            count = len(self._feed.in_flight)
            self._tell(
                Note(
                    "info", f"stopping ({self._stop.reason}): {count} requests in flight get {self._settings.grace:g} s"
                )
            )
        elif now - self._halted_at > self._settings.grace and self._feed.in_flight:
            self._engine.abort()
            self._feed.recall()

    def _check_budgets(self, now: float) -> None:
        settings, ledger = self._settings, self.ledger
        bad = ledger.rows - ledger.by_status.get(Status.OK, 0) - ledger.by_status.get(Status.SKIPPED, 0)
        if bad > settings.failures_allowed(ledger.rows):
            worst = max(ledger.examples.items(), key=lambda item: ledger.by_failure[item[0]])
            raise TooManyFailures(
                f"{bad} of {ledger.rows} rows failed, more than max_failures={settings.max_failures} allows; most often "
                f"{worst[0]}, as at row {worst[1].id!r}: {worst[1].message}. All finished rows are kept; to go on all the same, "
                "raise --max-failures"
            )
        if self._engine.needed:  # what needs no engine costs nothing, and may still be finished
            used_up = self._budget.used_up(now - self._started, self._engine.counts())
            self._stop.reason = self._stop.reason or used_up

    def _tick(self, now: float) -> None:
        ledger, counts = self.ledger, self._engine.counts()
        self._rates.append((now, ledger.rows, counts))
        while len(self._rates) > 2 and now - self._rates[0][0] > _RATE_SECONDS:
            self._rates.popleft()
        then, rows, usage = self._rates[0]
        seconds = max(now - then, 1e-9) if len(self._rates) > 1 else float("inf")
        rows_per_s = (ledger.rows - rows) / seconds
        total = self.rows_total()
        self._tell(
            Snapshot(
                elapsed=now - self._started,
                rows=ledger.rows,
                rows_total=total,
                by_status={str(k): v for k, v in ledger.by_status.items()},
                by_failure={str(k): v for k, v in ledger.by_failure.items()},
                attempts_retried=sum(ledger.sent_back.values()),
                usage=counts,
                rows_per_s=rows_per_s,
                prompt_tokens_per_s=(counts.prompt_tokens - usage.prompt_tokens) / seconds,
                completion_tokens_per_s=(counts.completion_tokens - usage.completion_tokens) / seconds,
                in_flight=len(self._feed.in_flight),
                waiting=self._feed.waiting,
                windows_open=len(self._open),
                idle_share=self._engine.idle_share(),
                seconds_left=(total - ledger.rows) / rows_per_s if total is not None and rows_per_s > 0 else None,
            )
        )

    def rows_total(self) -> int | None:
        """Rows of the input: exact once it is read to its end, before that estimated from how much of it was read."""
        if self._last_row is None:
            return None
        bounds = self._last_row.bounds
        read = bounds.last.index + 1
        if self._front.rows is not None:
            return len(self._front.rows)
        if bounds.stop is None:
            return read
        share = self._front.source.progress(bounds.stop)
        return max(read, round(bounds.stop.index / share)) if share else None
