"""How a run stands in; whether and why it is to end early, out: somebody asked, a budget is used up, too many rows fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from llmbatch.core.errors import TooManyFailures
from llmbatch.core.events import Note, Watcher
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Status, Usage
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.budget import Budget
from llmbatch.runs.pacing import Pacing


@dataclass(slots=True)
class Stop:
    """The wish to stop, and why. Whoever starts a run can ask for it, from any thread; the loop sees it between two steps."""

    reason: str | None = None
    asked: bool = False  # by a person: asking again ends the run at once

    def ask(self, reason: str) -> None:
        """Ask the run to stop: what is in flight may still finish. The first reason is the one that is told."""
        self.reason = self.reason or reason


class Brakes:
    """Ends a run early. ``grace`` seconds after it was halted, what is then still in flight is to be given up."""

    def __init__(
        self, settings: RunSettings, budget: Budget, stop: Stop, tell: Watcher, governor: Pacing | None = None
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._stop = stop
        self._tell = tell
        self._governor = governor
        self._started = time.monotonic()
        self._halted_at: float | None = None

    @property
    def halted(self) -> bool:
        """Whether nothing new is to be sent."""
        return self._halted_at is not None

    @property
    def reason(self) -> str | None:
        """Why the run is to stop; None: it goes on."""
        return self._stop.reason

    def look(self, ledger: Ledger) -> None:
        """Raises ``TooManyFailures`` or ``TooFewAccepted`` where that is more, or less, than the job allows."""
        if self._governor is not None:
            self._governor.look()
        bad = ledger.rows - ledger.by_status.get(Status.OK, 0) - ledger.by_status.get(Status.SKIPPED, 0)
        if bad > self._settings.failures_allowed(ledger.rows):
            worst = ledger.worst
            most = f"; most often {worst.kind}, as at row {worst.id!r}: {worst.message}" if worst is not None else ""
            raise TooManyFailures(
                f"{bad} of {ledger.rows} rows failed, more than max_failures={self._settings.max_failures} allows{most}. All "
                "finished rows are kept; to go on all the same, raise --max-failures"
            )

    def spend(self, usage: Usage, up: float = 0.0) -> None:
        """Ask for a stop where this session's time and tokens, with what was spent before it, are over a budget.

        ``up``: seconds in which engines were up, those of all of them together.
        """
        used_up = self._budget.used_up(time.monotonic() - self._started, usage, up)
        if used_up is not None:
            self._stop.ask(used_up)

    def wind_down(self, in_flight: int, halt: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Stopping: nothing new is sent, what is in flight gets its grace, then it is given up."""
        now, grace = time.monotonic(), self._settings.grace
        if self._halted_at is None:
            self._halted_at = now
            halt()
            self._tell(Note("info", f"stopping ({self._stop.reason}): {in_flight} requests in flight get {grace:g} s"))
        elif now - self._halted_at > grace and in_flight:
            give_up()
