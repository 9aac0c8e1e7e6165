"""What each row adds to a metric in, one at a time; arrays of a row each, whose sums the figure is made of, out.

Counts by name, such as those of macro F1 with three a label, are mostly 0: they are kept as a sparse array.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbatch.core.imports import extra
from llmbatch.evals import intervals
from llmbatch.evals.base import Floats, Metric, Value
from llmbatch.evals.intervals import Codes, Interval

sparse = extra("scipy.sparse", "eval", "an evaluation")
DENSE = 64
"""Columns up to which an array is kept whole."""


class Statistics(NamedTuple):
    """What the rows of a set add to a metric. ``matrix`` has a row for each of ``rows``, which are places in the run."""

    names: tuple[str, ...]
    matrix: Any
    rows: NDArray[np.int64]

    def of(self, wanted: NDArray[np.bool_]) -> Statistics:
        """Those of some of the run's rows; ``wanted`` has an entry for each row of the run."""
        kept = np.flatnonzero(wanted[self.rows])
        return Statistics(self.names, self.matrix[kept], self.rows[kept])


class StatisticsBuilder:
    """Gathers what the rows add, one call for each row of the run, in order."""

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}
        self._places, self._of_row, self._values = array("q"), array("q"), array("d")
        self._rows = array("q")
        self._seen = 0

    def add(self, value: Value) -> None:
        if value is not None:
            row = len(self._rows)
            self._rows.append(self._seen)
            for name, number in (value if not isinstance(value, float | int) else {"value": value}).items():
                self._of_row.append(row)
                self._places.append(self._columns.setdefault(name, len(self._columns)))
                self._values.append(number)
        self._seen += 1

    def finish(self) -> Statistics:
        shape = (len(self._rows), max(len(self._columns), 1))
        places = (np.array(self._of_row, np.int64), np.array(self._places, np.int64))
        matrix = sparse.csr_array((np.array(self._values, np.float64), places), shape)
        names = tuple(self._columns) or ("value",)
        return Statistics(names, matrix.toarray() if len(names) <= DENSE else matrix, np.array(self._rows, np.int64))


def figures(metric: Metric, names: tuple[str, ...], sums: Floats, rows: Floats) -> Floats:
    """The figures of several sets of rows, of their sums."""
    with np.errstate(all="ignore"):  # what cannot be divided is no number, and is told as that
        found = metric.kind.total({name: sums[:, place] for place, name in enumerate(names)}, rows, metric.settings)
    return np.asarray(found, dtype=float)


def figure_of(metric: Metric, statistics: Statistics) -> float | None:
    """The figure of all the rows; None where it is no number, as of no row at all."""
    if not len(statistics.rows):
        return None
    sums = intervals.sums_of(statistics.matrix)
    value = float(figures(metric, statistics.names, sums, np.array([float(len(statistics.rows))]))[0])
    return value if math.isfinite(value) else None


def interval_of(
    metric: Metric, statistics: Statistics, clusters: Codes | None, confidence: float, seed: int
) -> Interval | None:
    """The interval of the figure. ``clusters`` has an entry for each row of the run."""
    codes = intervals.dense_codes(None if clusters is None else clusters[statistics.rows])
    bounds = metric.kind.bounds(metric.settings)
    if not len(statistics.rows):
        return None
    if metric.kind.is_mean:
        return intervals.of_mean(statistics.matrix[:, 0], codes, bounds, confidence)
    return intervals.of_figure(
        statistics.matrix,
        codes,
        lambda sums, rows: figures(metric, statistics.names, sums, rows),
        confidence,
        seed,
        method=metric.kind.interval,
        bounds=bounds,
    )
