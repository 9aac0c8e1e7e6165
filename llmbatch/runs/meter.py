"""What windows and engine did in; where the run stands, out: the account of its records, rates, rows in all, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from llmbatch.core.events import Snapshot, Watcher
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Record, Usage
from llmbatch.engines.base import Driver
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.records import record_on
from llmbatch.runs.pacing import Pacing
from llmbatch.runs.window import OpenWindow
from llmbatch.sources.base import Source

_RATE_SECONDS = 30.0


class Meter:
    """Counts one session of a run, over what earlier sessions did.

    ``sealed`` is the account of the windows that are sealed, ``journals`` that of those of which only journals are there, by
    number; ``last`` are the bounds of the last window known. ``rows`` is how many rows are to be run, where that is not all; of
    several ``slices`` of the input one is run. A ``governor``, where the number of accepted rows decides, is told of every record.
    """

    def __init__(
        self,
        source: Source,
        driver: Driver,
        tell: Watcher,
        *,
        sealed: Ledger,
        journals: Mapping[int, Ledger],
        last: Bounds | None,
        rows: int | None,
        slices: int = 1,
        governor: Pacing | None = None,
    ) -> None:
        self._source = source
        self._driver = driver
        self._tell = tell
        self._sealed = Ledger()
        self._sealed.merge(sealed)
        self._journals = dict(journals)
        self._last = last
        self._rows = rows
        self._slices = slices
        self._governor = governor
        self._open: dict[int, OpenWindow] = {}
        self._started = time.monotonic()
        self._rates: deque[tuple[float, int, Usage]] = deque()

    @property
    def ledger(self) -> Ledger:
        """The account of every record so far: those of sealed and of open windows, and of journals not read again yet."""
        total = Ledger()
        for account in (self._sealed, *self._journals.values(), *(window.ledger for window in self._open.values())):
            total.merge(account)
        return total

    def opened(self, window: OpenWindow) -> None:
        """A window is taken in; what its journal held is counted with it from now on."""
        bounds = window.bounds
        self._journals.pop(bounds.window, None)
        self._open[bounds.window] = window
        if self._last is None or bounds.window >= self._last.window:
            self._last = bounds
        if self._governor is not None:
            for line in window.lines.values():
                self._governor.finished(record_on(line))

    def finished(self, record: Record) -> None:
        """A row of a window that was taken in has its record."""
        if self._governor is not None:
            self._governor.finished(record)

    def sealed(self, window: OpenWindow) -> None:
        """A window is complete."""
        del self._open[window.bounds.window]
        self._sealed.merge(window.ledger)

    def tick(self, *, in_flight: int, waiting: int) -> None:
        """Tell where the run stands. Rates are over the last half minute."""
        now, ledger, counts = time.monotonic(), self.ledger, self._driver.counts()
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
                in_flight=in_flight,
                waiting=waiting,
                windows_open=len(self._open),
                idle_share=self._driver.idle_share(),
                seconds_left=(total - ledger.rows) / rows_per_s if total is not None and rows_per_s > 0 else None,
                accepted=None if self._governor is None else self._governor.accepted,
                replicas=self._driver.replicas(),
                worst=ledger.worst,
                accepted_wanted=None if self._governor is None else self._governor.wanted,
                ready_seconds=self._driver.ready_seconds,
                busy_seconds=self._driver.busy_seconds,
                deaths=self._driver.deaths,
            )
        )

    def rows_total(self) -> int | None:
        """Rows of the input: exact once it is read to its end, before that estimated from how much of it was read."""
        if self._rows is not None:
            return self._rows
        if self._governor is not None:
            return self._governor.expected()
        if self._last is None:
            return None
        bounds, slices = self._last, self._slices
        read = bounds.last.index + 1
        if bounds.stop is None:
            return read if slices == 1 else read // slices
        share = self._source.progress(bounds.stop)
        return max(read, round(bounds.stop.index / share)) // slices if share else None
