"""A task's records in, in input order; whether its first metric is known well enough, and by which row that was, out.

The interval is a confidence sequence (``evals/sequential.py``), so it may be looked at after every row. What is decided depends on
the records in their order alone: a run that was killed and gone on with ends at the same row. Rows that were in flight then are
finished and kept, and do not count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llmbatch.core.types import Record
from llmbatch.engines.supervised import Cancelled
from llmbatch.evals.base import Example, Metric
from llmbatch.evals.sequential import ConfidenceSequence
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.pacing import Slots
from llmbatch.runs.turns import Turns

_USUAL_SLOTS = 256  # as long as no engine is up
_AHEAD = 2  # times what the engine has in hand are begun
_BEHIND = 8  # times what the engine has in hand may be finished behind a row that takes long, and so be in vain
_LOOK_SECONDS = 0.5


class Until:
    """A fold over examples in order; those of a cluster, which come one after another, are one unit."""

    def __init__(self, metric: Metric, sequence: ConfidenceSequence) -> None:
        self.sequence = sequence
        self.rows = 0  # that count
        self.narrow = False
        self._metric = metric
        self._cluster: str | None = None
        self._total, self._waiting, self._seen = 0.0, 0, 0

    def take(self, example: Example) -> bool:
        """The next row; whether it counts. Once it is narrow enough, nothing changes any more."""
        if not self.narrow and self._waiting and (example.cluster is None or example.cluster != self._cluster):
            self._close()
        if self.narrow:
            return False
        value: Any = self._metric.of(example)
        self._seen += 1
        if value is not None:
            self._cluster, self._total, self._waiting = example.cluster, self._total + float(value), self._waiting + 1
        if example.cluster is None:
            self._close()
        return True

    def end(self) -> None:
        """There are no more rows."""
        if not self.narrow:
            self._close()
            self.rows = self._seen

    def _close(self) -> None:
        """A unit is complete."""
        if self._waiting:
            self.sequence.add(self._total, self._waiting)
        self._total, self._waiting = 0.0, 0
        self.rows = self._seen
        self.narrow = self.sequence.is_narrow_enough


def decided(until: Until, examples: Iterable[Example]) -> Iterator[Example]:
    """The examples that count: up to the row by which the interval was narrow enough."""
    for example in examples:
        if not until.take(example):
            return
        yield example
    until.end()


class UntilNarrow:
    """The pacing of a run that ends once it is narrow enough. ``example`` makes a row's example of its record, asked in order."""

    def __init__(self, until: Until, example: Callable[[Record], Example], run: RunSettings, slots: Slots) -> None:
        self._until = until
        self._example = example
        self._run = run
        self._slots = slots
        self._changed = threading.Condition()  # for all that follows
        self._turns: Turns[Record] = Turns()
        self._stopped = False
        self.accepted: int | None = None
        self.wanted: int | None = None

    def expected(self) -> int | None:
        return None

    def room(self) -> int:
        with self._changed:
            while True:
                if self._stopped:
                    raise Cancelled
                if self._until.narrow:
                    return 0
                if (room := self._room()) > 0:
                    return room
                self._changed.wait(_LOOK_SECONDS)

    def begun(self, indexes: Iterable[int]) -> None:
        with self._changed:
            self._turns.begin(indexes)

    def sealed(self, records: Iterable[Record]) -> None:
        for record in records:
            with self._changed:
                self._turns.begin([record.index])
                self._finish(record)

    def finished(self, record: Record) -> None:
        with self._changed:
            self._finish(record)
            self._changed.notify_all()

    def look(self) -> None:
        """It is never given up."""

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _finish(self, record: Record) -> None:
        for first in self._turns.finish(record.index, record):
            if not self._until.narrow:
                self._until.take(self._example(first))

    def _room(self) -> int:
        """As many as keep the engine busy; the less is begun ahead, the less is asked in vain."""
        slots = self._slots() or _USUAL_SLOTS
        outstanding = self._turns.outstanding
        undecided = min(self._run.window * self._run.windows_open, _BEHIND * slots)
        if len(self._turns) >= undecided or outstanding > (_AHEAD - 1) * slots:
            return 0
        return min(_AHEAD * slots - outstanding, self._run.window)


__all__ = ["Until", "UntilNarrow", "decided"]
