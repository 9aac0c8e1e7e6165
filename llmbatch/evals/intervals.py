"""Values or summed statistics of rows in; an interval that holds the truth as often as it says out.

The truth is what one would see with endlessly many rows like these. Which method each case has was chosen by how often it holds the
truth on simulated data (``eval/harness/coverage.py``):

- a share of independent rows (each 0 or 1): the exact mid-p interval, which unlike Clopper and Pearson's is not too wide at
  small numbers of rows;
- any other mean between known bounds: Wilson's interval, with the variance that was seen in place of the binomial one, and
  Student's t. Near a bound it is lopsided, as it should be, where the mean plus or minus t errors holds the truth in as little as
  70%;
- a figure that is no mean, such as corpus BLEU: the percentile bootstrap, widened to what t asks for (Hesterberg 2015);
- of rows in clusters the clusters are the units: the variance is the cluster-robust one with the CR2 correction of Bell and
  McCaffrey, the degrees of freedom are those of Imbens and Kolesár (2016), so that few and unequal clusters do as well, and the
  bootstrap draws whole clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbatch.core.imports import extra
from llmbatch.evals.base import Floats

sparse = extra("scipy.sparse", "eval", "an evaluation")
special = extra("scipy.special", "eval", "an evaluation")

RESAMPLES = 2000
_CELLS = 2_000_000  # numbers in a block of resamples: 16 MB

Codes = NDArray[np.int64]
"""Which cluster each row is of, counted from 0 without a gap."""

Figure = Callable[[Floats, Floats], Floats]
"""The figures of several sets of rows: their sums (sets x statistics) and numbers of rows in."""


class Spread(NamedTuple):
    """The standard error of a figure, and the degrees of freedom it is known with."""

    error: float
    freedom: float


class Interval(NamedTuple):
    low: float
    high: float
    method: str
    spread: Spread | None = None


def t_quantile(confidence: float, freedom: float) -> float:
    """Student's t beyond which lies half of what the confidence leaves, at the upper side."""
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def clipped(interval: Interval | None, bounds: tuple[float, float] | None) -> Interval | None:
    """The part of an interval that lies within the bounds."""
    if interval is None or bounds is None:
        return interval
    return interval._replace(low=max(interval.low, bounds[0]), high=min(interval.high, bounds[1]))


def dense_codes(clusters: Codes | None) -> Codes | None:
    """The codes of some of the rows, counted anew without gaps."""
    return None if clusters is None else np.unique(clusters, return_inverse=True)[1].astype(np.int64)


def of_share(right: int, rows: int, confidence: float) -> Interval:
    """The exact mid-p interval of a share."""
    tail = (1 - confidence) / 2

    def above(p: float) -> float:  # how likely more is than what was seen, which itself counts half
        upper = special.bdtrc(right, rows, p)
        more = special.bdtrc(right - 1, rows, p) if right else 1.0
        return float((upper + more) / 2)

    low = 0.0 if right == 0 else _root(lambda p: above(p) - tail)
    high = 1.0 if right == rows else _root(lambda p: above(p) - (1 - tail))
    p = right / rows
    error = math.sqrt(max(p * (1 - p), 0.25 / rows) / rows)
    return Interval(low, high, "mid-p", Spread(error, max(rows - 1, 1)))


def of_mean(
    values: Floats, clusters: Codes | None, bounds: tuple[float, float] | None, confidence: float
) -> Interval | None:
    """The interval of a mean; None where there are too few rows or clusters for one."""
    if clusters is None and bounds == (0.0, 1.0) and len(values) and np.isin(values, (0.0, 1.0)).all():
        return of_share(int(values.sum()), len(values), confidence)
    groups = len(values) if clusters is None else _count(clusters)
    if groups < 2:
        return None
    mean = float(values.mean())
    seen = spread((values - mean) / len(values), clusters)
    by = "" if clusters is None else " by clusters"
    if bounds is None:
        half = t_quantile(confidence, seen.freedom) * seen.error
        return Interval(mean - half, mean + half, f"t{by}", seen)
    return Interval(*_wilson(mean, seen, bounds, confidence, groups), f"wilson-t{by}", seen)


def of_figure(
    matrix: Any,
    clusters: Codes | None,
    figure: Figure,
    confidence: float,
    seed: int,
    *,
    method: str = "bootstrap",
    bounds: tuple[float, float] | None = None,
) -> Interval | None:
    """The interval of a figure that is made of sums; None where there are too few rows or clusters for one.

    ``matrix`` has a row for each row and a column for each statistic, dense or as a sparse array. With few clusters the tails that
    t asks for are further out than resamples show; then, and with the method jackknife, it is the figure plus or minus t jackknife
    errors.
    """
    rows = matrix.shape[0]
    counts = np.ones(rows) if clusters is None else np.bincount(clusters).astype(float)
    groups = len(counts)
    if groups < 2:
        return None
    by = "" if clusters is None else " by clusters"
    freedom, influence = float(groups - 1), None
    if clusters is not None or method == "jackknife":
        influence = jackknife(matrix, figure)
        freedom = spread(influence, clusters).freedom
    quantile = t_quantile(confidence, freedom)
    tail = float(special.ndtr(-quantile * math.sqrt(groups / (groups - 1))))
    if method == "bootstrap" and tail * RESAMPLES >= 2:
        drawn = np.concatenate(
            [
                figure(np.asarray(weights @ grouped), weights @ counts)
                for grouped in [by_group(matrix, clusters, groups)]
                for weights in _resamples(groups, seed)
            ]
        )
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < RESAMPLES / 2:
            return None
        low, high = np.quantile(drawn, (tail, 1 - tail))
        return Interval(float(low), float(high), f"bootstrap{by}", Spread(float(high - low) / 2 / quantile, freedom))
    seen = spread(jackknife(matrix, figure) if influence is None else influence, clusters)
    value = float(figure(sums_of(matrix), np.array([float(rows)]))[0])
    low, high = value - quantile * seen.error, value + quantile * seen.error
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return clipped(Interval(low, high, f"jackknife{by}", seen), bounds)


def jackknife(matrix: Any, figure: Figure) -> Floats:
    """What each row does to a figure: by how much it differs without the row, as a share of all rows' weight; 0 on average."""
    rows = matrix.shape[0]
    total = sums_of(matrix)
    without = []
    for start in range(0, rows, step := max(1, _CELLS // matrix.shape[1])):
        block = matrix[start : start + step]
        block = block.toarray() if sparse.issparse(block) else block
        without.append(figure(total - block, np.full(len(block), rows - 1.0)))
    influence = -np.concatenate(without) * (rows - 1) / rows
    centred: Floats = influence - influence.mean()
    return centred


def spread(influence: Floats, clusters: Codes | None) -> Spread:
    """The standard error of what is the sum of its rows' influences, which are 0 on average.

    In clusters: CR2 for the variance, and the degrees of freedom by a model in which the rows of a cluster are correlated as much
    as they were seen to be, which counts for much where a few clusters are far larger than the rest.
    """
    rows = len(influence)
    if clusters is None:
        return Spread(math.sqrt(float(influence @ influence) * rows / (rows - 1)), rows - 1.0)
    sizes = np.bincount(clusters).astype(np.float64)
    sums = np.bincount(clusters, influence).astype(np.float64)
    error = math.sqrt(float((sums**2 / (1 - sizes / rows)).sum()))
    return Spread(error, _freedom(sizes, _correlation(influence, sums, sizes)))


def _correlation(influence: Floats, sums: Floats, sizes: Floats) -> float:
    """How much rows of a cluster are correlated, by the analysis of variance."""
    rows, groups = sizes.sum(), len(sizes)
    if rows == groups:
        return 0.0
    between = float((sums**2 / sizes).sum())
    within = max(float(influence @ influence) - between, 0.0) / (rows - groups)
    between /= groups - 1
    size = (rows - float((sizes**2).sum()) / rows) / (groups - 1)
    whole = between + (size - 1) * within
    return min(max((between - within) / whole, 0.0), 1.0) if whole > 0 else 0.0


def _freedom(sizes: Floats, correlation: float) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance of a mean: (trace)^2 / trace of the square of the matrix M.

    M_gh = a_g a_h (d_gh v_g - c_h v_g - c_g v_h + c_g c_h V) is a diagonal and two outer products, so no matrix is made.
    """
    share = sizes / sizes.sum()
    scale = 1 / np.sqrt(1 - share)
    variance = sizes * (1 - correlation) + sizes**2 * correlation
    all_variance = variance.sum()
    diagonal, p, q = scale**2 * variance, scale * variance, scale * share
    rest = -2 * p * q + all_variance * q**2
    pp, pq, qq = p @ p, p @ q, q @ q
    square = (diagonal**2).sum() + 2 * (diagonal * rest).sum()
    square += 2 * pp * qq + 2 * pq**2 + (all_variance * qq) ** 2 - 4 * all_variance * pq * qq
    return max(float((diagonal + rest).sum() ** 2 / square), 1.0)


def _wilson(
    mean: float, seen: Spread, bounds: tuple[float, float], confidence: float, groups: int
) -> tuple[float, float]:
    """The means that t would not reject, if the variance were to them as the one that was seen is to the mean that was seen.

    Of values that are all the same the variance is unknown: it is taken for the greatest that such a mean can have.
    """
    low, high = bounds
    p = min(max((mean - low) / (high - low), 0.0), 1.0)
    most = p * (1 - p)
    ratio = (seen.error / (high - low)) ** 2 / most if seen.error > 0 and most > 0 else 1 / groups
    k = t_quantile(confidence, seen.freedom) ** 2 * ratio
    centre, half = (p + k / 2) / (1 + k), math.sqrt(k * most + k * k / 4) / (1 + k)
    return low + max(centre - half, 0.0) * (high - low), low + min(centre + half, 1.0) * (high - low)


def _resamples(groups: int, seed: int) -> Iterator[Floats]:
    """How often each group is drawn in each resample, in blocks."""
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // groups)
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = generator.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(float)


def by_group(matrix: Any, clusters: Codes | None, groups: int) -> Any:
    """The sums of each cluster's rows; of independent rows the rows themselves."""
    if clusters is None:
        return matrix
    member = sparse.csr_array((np.ones(len(clusters)), (clusters, np.arange(len(clusters)))), (groups, len(clusters)))
    return member @ matrix


def sums_of(matrix: Any) -> Floats:
    """The sums of all rows, as those of one set."""
    return np.asarray(matrix.sum(axis=0), dtype=float).reshape(1, -1)


def _count(clusters: Codes) -> int:
    return int(clusters.max()) + 1 if len(clusters) else 0


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that rises from 0 to 1 is zero, to the last digit of a float."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return middle
