"""A bounded metric's values in, in random order, one unit at a time; an interval that is valid whenever one stops out.

An ordinary 95% interval that is looked at after every row, until it is narrow enough, holds the truth in less than 95%. This one
is a confidence sequence: with probability 95% it holds the truth at every moment at once, so one may stop at any of them, for any
reason.

It is the hedged betting one of Waudby-Smith and Ramdas (2024). For each mean m that is still possible two gamblers bet, before a
unit is seen, that its values will be above m, and below it. If m is the truth neither wins in the long run, and that one ever has
40 times what it began with has a probability of at most 1/40 (Ville); so an m at which one has it is out. The bet is the one that
is best where the interval has the half-width that is asked for, which costs about twice the rows of an interval that may be looked
at but once.

Rows must come in random order, or the first ones say nothing of the rest. Rows of a cluster come together, as one unit: the bet is
on the sum of (value - m) over its rows, whose mean is 0 at the truth, by the size of the largest cluster.
"""

from __future__ import annotations

import math

import numpy as np

from llmbatch.core.errors import JobError
from llmbatch.evals.base import Metric
from llmbatch.evals.intervals import Interval

_POINTS = 40  # means that are looked at for each half-width
_BOLDEST = 0.5  # part of its money that a gambler stakes at most


class ConfidenceSequence:
    """The interval of a mean so far; ``add`` a unit at a time, in an order that does not depend on the values."""

    def __init__(
        self,
        half_width: float,
        bounds: tuple[float, float] = (0.0, 1.0),
        confidence: float = 0.95,
        largest_cluster: int = 1,
    ) -> None:
        self._low, self._width = bounds[0], bounds[1] - bounds[0]
        self._half = half_width / self._width
        if not 0 < self._half < 0.5:
            raise JobError(
                f"an interval that reaches {half_width:g} to each side: it must be more than 0 and less than {self._width / 2:g}, "
                f"as the figure lies between {bounds[0]:g} and {bounds[1]:g}"
            )
        self._largest = largest_cluster
        self._means = np.linspace(0.0, 1.0, math.ceil(_POINTS / self._half) + 1)
        self._above = np.zeros(len(self._means))  # logarithms of what the gamblers have
        self._below = np.zeros(len(self._means))
        self._out = math.log(2 / (1 - confidence))
        self._first, self._last = 0, len(self._means) - 1
        self._units, self._rows = 0, 0
        self._total, self._squares = 0.0, 0.0

    def add(self, total: float, rows: int = 1) -> None:
        """One unit: a row's value, or the sum of the values of a cluster's rows and their number."""
        if rows > self._largest:
            raise ValueError(f"a cluster of {rows} rows, and the largest was said to have {self._largest}")
        scaled = (total - self._low * rows) / self._width
        alive = slice(self._first, self._last + 1)
        means = self._means[alive]
        gain = (scaled - means * rows) / self._largest  # from -m to 1 - m
        stake = self._stake()
        with np.errstate(divide="ignore"):
            self._above[alive] += np.log1p(np.minimum(stake, _BOLDEST / means) * gain)
            self._below[alive] += np.log1p(-np.minimum(stake, _BOLDEST / (1 - means)) * gain)
        # What the gamblers have falls and rises with m: up to the last point that is out, all between the points is out, too.
        while self._first < self._last and self._above[self._first + 1] >= self._out:
            self._first += 1
        while self._last > self._first and self._below[self._last - 1] >= self._out:
            self._last -= 1
        self._units += 1
        self._rows += rows
        self._total += scaled
        mean = (self._total + 0.5) / (self._rows + 1)
        self._squares += ((scaled - rows * mean) / self._largest) ** 2

    def _stake(self) -> float:
        """What is best against a mean that is half an interval off: that distance by the variance, of the units before."""
        distance = self._half * (self._rows + 1) / (self._units + 1) / self._largest
        return distance / ((self._squares + 0.25 / self._largest) / (self._units + 1))

    @property
    def value(self) -> float | None:
        """The mean so far."""
        return self._low + self._width * self._total / self._rows if self._rows else None

    @property
    def interval(self) -> Interval:
        low, high = (self._low + self._width * float(self._means[place]) for place in (self._first, self._last))
        return Interval(low, high, "betting confidence sequence")

    @property
    def is_narrow_enough(self) -> bool:
        """Whether the interval reaches no further than asked for to either side of its middle."""
        return bool(self._means[self._last] - self._means[self._first] <= 2 * self._half)


def sequence_for(
    metric: Metric, half_width: float, confidence: float = 0.95, largest_cluster: int = 1
) -> ConfidenceSequence:
    """The confidence sequence of a metric's figure. Raises ``JobError`` for a metric that is no mean between known bounds."""
    bounds = metric.kind.bounds(metric.settings)
    if not metric.kind.is_mean or bounds is None:
        raise JobError(
            f"metric {metric.name}: stopping as soon as the interval is narrow enough takes a metric that is a mean between known "
            "bounds, such as accuracy; say with which of the task's metrics to stop, or ask for a number of rows"
        )
    return ConfidenceSequence(half_width, bounds, confidence, largest_cluster)


__all__ = ["ConfidenceSequence", "sequence_for"]
