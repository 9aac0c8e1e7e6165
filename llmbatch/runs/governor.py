"""Rows that are begun and records that are there in; how many rows may be begun next, out: the number of accepted rows decides.

Shared by the reader, which begins rows and waits here until more are needed, and the loop, which finishes them. A row that was
begun is always finished, so waiting for what is outstanding has an end; where nothing is outstanding and not enough are accepted,
the reader is never kept.

**How many.** As long as it is all but certain (``_CERTAIN``) that more will be needed than were begun, whole windows are begun
ahead of the engine, as ever. Then no more than the engine can hold, and only each time half of what was outstanding has come back:
as many as make it likely (``accept.confidence``) that enough will be accepted. So the excess is about the random spread of what is
in flight, some ``sqrt(in flight * (1 - share) / share)`` candidates, whatever the number wanted; the price is an engine that is not
full while the last answers are waited for, about as long as one or two answers take. Where few were seen, little is asked
(``_DOUBT``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from statistics import NormalDist

from llmbatch.accept.base import AcceptSettings, Candidate, candidate_of
from llmbatch.accept.forecast import Forecast, Share
from llmbatch.accept.selection import Decided, Selection
from llmbatch.core.errors import TooFewAccepted
from llmbatch.core.types import Record
from llmbatch.core.words import count, one_line
from llmbatch.engines.supervised import Cancelled
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.pacing import Slots
from llmbatch.runs.turns import Turns

_CERTAIN = 2.33  # standard deviations: wrong once in a hundred times
_DOUBT = 2.0  # standard errors by which a share may be higher than it seems: where few were seen, little is asked
_AHEAD = 4  # times what the engine holds: with less outstanding, its next window is prepared while it works on this one
_NEWS = 32  # the reader is woken when so many parts of what is outstanding came back, or one row
_USUAL_SLOTS = 512  # as long as no engine is up
_PATIENCE = 20  # times as many candidates as it took for an accepted one so far
_LOOK_SECONDS = 0.5


class Governor:
    """Of one session of a run that is to accept so many rows. ``begun`` and ``sealed`` are told in input order.

    So many candidates ``together`` may share their fate, as those do that are one row under several settings.
    """

    def __init__(self, settings: AcceptSettings, run: RunSettings, slots: Slots, together: int = 1) -> None:
        self._settings = settings
        self._run = run
        self._slots = slots
        self._certain = _CERTAIN * math.sqrt(together)
        self._luck = -NormalDist().inv_cdf(settings.confidence)
        self._changed = threading.Condition()  # for all that follows
        self._selection = Selection(settings)
        self._turns: Turns[Candidate] = Turns()  # of rows that are not decided
        self._passing = 0  # those of them that have their record, and meet the conditions
        self._passes, self._kept = Share(), Share()
        self._level = 0  # rows that were outstanding when last it was looked at whether a few more are needed
        self._news = 0  # records since the reader last looked
        self._stopped = False

    @property
    def decided(self) -> Decided:
        return self._selection.decided

    @property
    def accepted(self) -> int:
        """How many rows are accepted so far."""
        return self.decided.accepted

    @property
    def wanted(self) -> int | None:
        """How many accepted rows end the run."""
        return self._settings.rows

    def expected(self) -> int | None:
        """How many candidates there will have been at the end, as far as that can be told."""
        with self._changed:
            known = self.decided.candidates + self.decided.surplus + len(self._turns)
            if self._selection.full:
                return known
            return known + max(0, self._forecast() - self._turns.outstanding) if self._passes.seen >= 1 else None

    def room(self) -> int:
        """Wait until more rows are needed; how many may be begun now, 0 where enough are accepted. Raises ``Cancelled``."""
        with self._changed:
            while True:
                self._news = 0
                if self._stopped:
                    raise Cancelled
                if self._selection.full:
                    return 0
                if (room := self._room()) > 0:
                    return room
                self._changed.wait(_LOOK_SECONDS)

    def begun(self, indexes: Iterable[int]) -> None:
        """These rows are begun, the next in order."""
        with self._changed:
            self._turns.begin(indexes)
            self._level = self._turns.outstanding

    def sealed(self, records: Iterable[Record]) -> None:
        """These rows, the next in order, have their records from an earlier session."""
        for record in records:
            with self._changed:
                self._turns.begin([record.index])
                self._finish(record)

    def finished(self, record: Record) -> None:
        """A row that was begun has its record."""
        with self._changed:
            self._finish(record)
            self._news += 1
            if self._selection.full or self._news * _NEWS > self._turns.outstanding:
                self._changed.notify_all()

    def look(self) -> None:
        """Raises ``TooFewAccepted`` where it is to be given up."""
        with self._changed:
            if self._hopeless():
                raise TooFewAccepted(self._why())

    def stop(self) -> None:
        """Let go of a reader that waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _finish(self, record: Record) -> None:
        candidate = candidate_of(record, self._settings.unique)
        self._passing += candidate.fell is None
        self._passes.add(candidate.fell is None)
        for first in self._turns.finish(record.index, candidate):
            (accepted,) = self._selection.take([first])
            if first.fell is None:
                self._passing -= 1
                self._kept.add(accepted)

    def _room(self) -> int:
        window, outstanding = self._run.window, self._turns.outstanding
        if self._hopeless() or len(self._turns) >= window * self._run.windows_open:
            return 0  # behind a row that takes long, memory is bounded
        slots = self._slots() or _USUAL_SLOTS
        certain = self._forecast(self._certain, self._certain) - outstanding
        if certain >= window or (outstanding < _AHEAD * slots and certain >= slots):
            room = certain
        elif outstanding <= min(slots, self._level) / 2:
            self._level = outstanding
            room = max(certain, min(self._forecast(self._luck, _DOUBT), slots) - outstanding)
        else:
            room = 0
        return min(room, window, self._before_the_first())

    def _forecast(self, luck: float = 0.0, doubt: float = 0.0) -> int:
        """So many candidates are to be outstanding."""
        needed = (self._settings.rows or 0) - self.decided.accepted
        return Forecast(self._passing, self._passes, self._kept).candidates(needed, luck, doubt)

    def _before_the_first(self) -> int:
        """As long as none is accepted, no more are begun than it would take to give up."""
        give_up, decided = self._settings.give_up, self.decided
        if give_up is None or decided.accepted or self._passing:
            return self._run.window
        return give_up - decided.since - len(self._turns)

    def _hopeless(self) -> bool:
        decided, give_up = self.decided, self._settings.give_up
        if give_up is None or self._selection.full:
            return False
        before = decided.candidates - decided.since
        return decided.since >= max(give_up, _PATIENCE * before / decided.accepted if decided.accepted else 0)

    def _why(self) -> str:
        decided = self.decided
        seen = (
            f"none of the last {count(decided.since)} candidates was accepted"
            if decided.accepted
            else f"none of {count(decided.since)} candidates was accepted"
        )
        reasons = sorted(decided.fell.items(), key=lambda item: -item[1].rows)
        said = "; ".join(
            f"{count(fell.rows)} by {reason}, as row {fell.id!r}"
            + (f": {one_line(fell.message)}" if fell.message else "")
            for reason, fell in reasons[:5]
        )
        return (
            f"{seen}, and {count(decided.accepted)} of {count(self._settings.rows or 0)} wanted are there. They fell: {said}. All "
            "that is finished is kept. See what came (llmbatch show), and change the conditions or the prompt, which needs another "
            "--output; to go on all the same, raise accept.give_up"
        )


__all__ = ["Governor"]
