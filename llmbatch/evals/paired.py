"""What the same rows add to a metric in two runs in; how far apart the figures are, and whether chance would do that, out.

The difference has an interval as a figure has one (``evals/intervals.py``); of values that are 0 or 1 it is that of Bonett and
Price (2012), which does well where few rows differ. The p-value asks how often a difference as large comes about where the two runs
are the same but for luck: exactly by McNemar's test for independent rows of 0 and 1, else by swapping the runs at random, in whole
clusters; with very many rows by t, which then says the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbatch.core.imports import extra
from llmbatch.evals import intervals
from llmbatch.evals.base import Floats, Metric
from llmbatch.evals.intervals import Codes, Interval, Spread
from llmbatch.evals.statistics import DENSE, Statistics, figures

sparse = extra("scipy.sparse", "eval", "a comparison")
special = extra("scipy.special", "eval", "a comparison")

POWER = 0.8
"""With what probability a difference that is there is to be seen."""

_SWAPS = 10_000
_ALL_SWAPS = 12  # groups up to which every way to swap is tried
_MOST_GROUPS = 5_000  # above which t is as good as swapping
_CELLS = 4_000_000


class Difference(NamedTuple):
    """How far the second run is above the first, by a metric, over the rows that both have."""

    first: float
    second: float
    interval: Interval | None
    p: float | None
    test: str | None
    rows: int
    won: int | None
    """Rows at which the second run is better; None where the metric says nothing of one row."""
    lost: int | None
    tied: int | None
    detectable: float | None
    """The smallest difference that such rows show in 80 of 100 times."""
    rows_needed: int | None
    """How many rows a difference as large as the one that was seen takes to be shown in 80 of 100 times."""

    @property
    def value(self) -> float:
        return self.second - self.first


class Pairs(NamedTuple):
    """The statistics of two runs, with a row for each row that both have, and the same columns."""

    names: tuple[str, ...]
    first: Any
    second: Any
    clusters: Codes | None


def pair(
    first: Statistics, second: Statistics, at: tuple[NDArray[np.int64], NDArray[np.int64]], clusters: Codes | None
) -> tuple[Pairs, NDArray[np.int64]]:
    """The statistics of the rows at these places of the two runs, and which of these places both say something of.

    ``clusters`` has an entry for each of the places.
    """
    places = [_places(each, rows) for each, rows in zip((first, second), at, strict=True)]
    kept = np.flatnonzero((places[0] >= 0) & (places[1] >= 0))
    names = tuple(dict.fromkeys((*first.names, *second.names)))
    one, two = (_with_columns(each, names, rows[kept]) for each, rows in zip((first, second), places, strict=True))
    return Pairs(names, one, two, None if clusters is None else intervals.dense_codes(clusters[kept])), kept


def difference(metric: Metric, pairs: Pairs, confidence: float, seed: int) -> Difference | None:
    """The difference of two runs; None where a figure is no number."""
    rows = pairs.first.shape[0]
    if not rows:
        return None
    every = np.array([float(rows)])
    first, second = (
        float(figures(metric, pairs.names, intervals.sums_of(each), every)[0]) for each in (pairs.first, pairs.second)
    )
    if not (math.isfinite(first) and math.isfinite(second)):
        return None
    interval = interval_of_difference(metric, pairs, confidence, seed)
    p, test = _test(metric, pairs, interval, second - first, seed)
    won, lost, tied = _by_row(metric, pairs)
    detectable, needed = _power(interval, second - first, rows, confidence)
    return Difference(first, second, interval, p, test, rows, won, lost, tied, detectable, needed)


def row_gains(metric: Metric, pairs: Pairs) -> Floats:
    """By how much the second run is better at each row."""
    rows = pairs.first.shape[0]
    found = []
    for start in range(0, rows, step := max(1, _CELLS // len(pairs.names))):
        one, two = (
            figures(metric, pairs.names, _dense(each[start : start + step]), np.ones(min(step, rows - start)))
            for each in (pairs.first, pairs.second)
        )
        found.append(two - one)
    gains = np.nan_to_num(np.concatenate(found), nan=0.0)
    return np.asarray(gains if metric.kind.higher_is_better else -gains)


def holm(values: list[float | None]) -> list[float | None]:
    """p-values of several comparisons as they stand beside one another, by Holm's method."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted


def interval_of_difference(metric: Metric, pairs: Pairs, confidence: float, seed: int) -> Interval | None:
    """The interval of how far the second figure is above the first."""
    bounds = metric.kind.bounds(metric.settings)
    width = None if bounds is None else bounds[1] - bounds[0]
    between = None if width is None else (-width, width)
    if metric.kind.is_mean:
        first, second = pairs.first[:, 0], pairs.second[:, 0]
        if pairs.clusters is None and _is_binary(first) and _is_binary(second):
            return _of_discordant(first, second, confidence)
        return intervals.clipped(intervals.of_mean(second - first, pairs.clusters, None, confidence), between)
    columns = len(pairs.names)
    parts = [pairs.first, pairs.second]
    both = sparse.hstack(parts, format="csr") if sparse.issparse(pairs.first) else np.hstack(parts)

    def figure(sums: Floats, rows: Floats) -> Floats:
        ahead = figures(metric, pairs.names, sums[:, columns:], rows)
        return np.asarray(ahead - figures(metric, pairs.names, sums[:, :columns], rows))

    return intervals.of_figure(
        both, pairs.clusters, figure, confidence, seed, method=metric.kind.interval, bounds=between
    )


def _of_discordant(first: Floats, second: Floats, confidence: float) -> Interval | None:
    """Bonett and Price's interval of a difference of shares in the same rows: one more row is taken to be won, and one lost."""
    rows = len(first)
    if rows < 2:
        return None
    seen = intervals.spread((second - first - (second - first).mean()) / rows, None)
    won, lost = (float(((second - first) == sign).sum() + 1) / (rows + 2) for sign in (1, -1))
    half = float(special.ndtri(0.5 + confidence / 2)) * math.sqrt((won + lost - (won - lost) ** 2) / (rows + 2))
    return Interval(max(won - lost - half, -1.0), min(won - lost + half, 1.0), "bonett-price", seen)


def _test(
    metric: Metric, pairs: Pairs, interval: Interval | None, value: float, seed: int
) -> tuple[float | None, str | None]:
    is_mean = metric.kind.is_mean
    if is_mean and pairs.clusters is None and _is_binary(pairs.first[:, 0]) and _is_binary(pairs.second[:, 0]):
        gains = pairs.second[:, 0] - pairs.first[:, 0]
        won, lost = int((gains > 0).sum()), int((gains < 0).sum())
        return min(
            1.0, 2 * float(special.bdtr(min(won, lost), won + lost, 0.5))
        ) if won + lost else 1.0, "McNemar, exact"
    groups = pairs.first.shape[0] if pairs.clusters is None else int(pairs.clusters.max()) + 1
    if groups < 2 or interval is None or interval.spread is None:
        return None, None
    by = "" if pairs.clusters is None else " by clusters"
    if groups > _MOST_GROUPS:
        return _p_of_t(value, interval.spread), f"t{by}"
    return _permutation(metric, pairs, groups, value, seed), f"permutation{by}"


def _p_of_t(value: float, spread: Spread) -> float:
    if spread.error == 0:
        return 1.0 if value == 0 else 0.0
    return 2 * float(special.stdtr(spread.freedom, -abs(value) / spread.error))


def _permutation(metric: Metric, pairs: Pairs, groups: int, value: float, seed: int) -> float:
    """How often the runs, swapped at random in each group, are as far apart as they are."""
    first, second = (intervals.by_group(each, pairs.clusters, groups) for each in (pairs.first, pairs.second))
    change, rows = second - first, pairs.first.shape[0]
    sums = (intervals.sums_of(pairs.first), intervals.sums_of(pairs.second))
    exact = groups <= _ALL_SWAPS
    count = 2**groups if exact else _SWAPS
    generator = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, count, step := max(1, _CELLS // groups)):
        size = min(step, count - start)
        if exact:
            swapped = (np.arange(start, start + size)[:, None] >> np.arange(groups) & 1).astype(float)
        else:
            swapped = generator.integers(0, 2, (size, groups), np.int8).astype(float)
        moved = np.asarray(swapped @ change)
        all_rows = np.full(size, float(rows))
        apart = figures(metric, pairs.names, sums[1] - moved, all_rows) - figures(
            metric, pairs.names, sums[0] + moved, all_rows
        )
        as_far += int((np.abs(apart) >= abs(value) - 1e-9 * max(1.0, abs(value))).sum())
    return as_far / count if exact else (as_far + 1) / (count + 1)


def _by_row(metric: Metric, pairs: Pairs) -> tuple[int | None, int | None, int | None]:
    if not metric.kind.by_row:
        return None, None, None
    gains = row_gains(metric, pairs)
    won, lost = int((gains > 1e-12).sum()), int((gains < -1e-12).sum())
    return won, lost, len(gains) - won - lost


def _power(interval: Interval | None, value: float, rows: int, confidence: float) -> tuple[float | None, int | None]:
    if interval is None or interval.spread is None or interval.spread.error == 0:
        return None, None
    error, freedom = interval.spread
    quantiles = intervals.t_quantile(confidence, freedom) + float(special.stdtrit(freedom, POWER))
    detectable = quantiles * error
    needed = math.ceil(rows * (detectable / value) ** 2) if abs(value) > 1e-12 else None
    return detectable, needed


def _places(statistics: Statistics, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the statistics these rows of the run are; -1 for one that the metric says nothing of."""
    most = int(max(rows.max(initial=-1), statistics.rows.max(initial=-1))) + 1
    place = np.full(most, -1, np.int64)
    place[statistics.rows] = np.arange(len(statistics.rows))
    return np.asarray(place[rows])


def _with_columns(statistics: Statistics, names: tuple[str, ...], rows: NDArray[np.int64]) -> Any:
    """These rows of the statistics, with these columns."""
    column = {name: place for place, name in enumerate(names)}
    entries = sparse.coo_array(statistics.matrix[rows])
    places = np.array([column[name] for name in statistics.names], np.int64)[entries.coords[1]]
    made = sparse.csr_array((entries.data, (entries.coords[0], places)), (len(rows), len(names)))
    return made.toarray() if len(names) <= DENSE else made


def _is_binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _dense(matrix: Any) -> Floats:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=float)
