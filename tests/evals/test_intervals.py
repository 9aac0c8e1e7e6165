"""Intervals against their definitions, and the shape that they must have; how often they hold the truth is in eval/harness."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse, stats

from llmbatch.evals import intervals
from llmbatch.evals.base import make_metric
from llmbatch.evals.intervals import of_figure, of_mean, of_share, spread
from llmbatch.evals.statistics import Statistics, StatisticsBuilder, figure_of, interval_of


def rows(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).random(size)


@pytest.mark.parametrize(("right", "size"), [(0, 10), (1, 10), (5, 10), (10, 10), (37, 50), (990, 1000)])
def test_a_share_has_the_bounds_at_which_what_was_seen_is_as_unlikely_as_the_tails(right: int, size: int) -> None:
    found = of_share(right, size, 0.95)
    if right:
        at_low = stats.binom.sf(right, size, found.low) + stats.binom.pmf(right, size, found.low) / 2
        assert at_low == pytest.approx(0.025, abs=1e-9)
    else:
        assert found.low == 0
    if right < size:
        at_high = stats.binom.cdf(right - 1, size, found.high) + stats.binom.pmf(right, size, found.high) / 2
        assert at_high == pytest.approx(0.025, abs=1e-9)
    else:
        assert found.high == 1


def test_an_unbounded_mean_has_students_interval() -> None:
    values = rows(1, 20) * 100
    found = of_mean(values, None, None, 0.9)
    expected = stats.t.interval(0.9, 19, values.mean(), stats.sem(values))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_bounded_mean_stays_within_its_bounds_and_tends_to_students_interval() -> None:
    few = of_mean(np.array([1.0, 1.0, 0.5, 1.0]), None, (0.0, 1.0), 0.95)
    assert few is not None
    assert 0 < few.low < 0.875 < few.high <= 1
    values = rows(2, 100_000)
    many, student = of_mean(values, None, (0.0, 1.0), 0.95), of_mean(values, None, None, 0.95)
    assert many is not None and student is not None
    assert (many.low, many.high) == pytest.approx((student.low, student.high), abs=1e-6)


def test_the_interval_does_not_depend_on_the_scale() -> None:
    values = rows(3, 30)
    one, two = of_mean(values, None, (0.0, 1.0), 0.95), of_mean(1 + 4 * values, None, (1.0, 5.0), 0.95)
    assert one is not None and two is not None
    assert (1 + 4 * one.low, 1 + 4 * one.high) == pytest.approx((two.low, two.high))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_values_that_are_all_the_same_do_not_make_the_mean_certain(value: float) -> None:
    found = of_mean(np.full(20, value), np.arange(20) // 2, (0.0, 1.0), 0.95)
    assert found is not None
    assert found.high - found.low > 0.2


@pytest.mark.parametrize("values", [[], [0.3]])
def test_too_few_rows_have_no_interval(values: list[float]) -> None:
    assert of_mean(np.array(values), None, (0.0, 1.0), 0.95) is None
    assert of_mean(np.array([0.1, 0.2, 0.3]), np.zeros(3, np.int64), (0.0, 1.0), 0.95) is None


def test_the_variance_by_clusters_is_cr2_as_its_matrices_define_it() -> None:
    sizes = np.array([1, 2, 5, 7])
    codes = np.repeat(np.arange(4), sizes)
    values = rows(4, 15)
    count, ones = len(values), np.ones((15, 1))
    hat = ones @ ones.T / count
    residuals = values - values.mean()
    meat = 0.0
    for cluster in range(4):
        of = codes == cluster
        left = np.eye(of.sum()) - hat[np.ix_(of, of)]
        eigenvalues, vectors = np.linalg.eigh(left)
        adjusted = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T @ residuals[of]
        meat += adjusted.sum() ** 2
    assert spread(residuals / count, codes).error == pytest.approx(math.sqrt(meat) / count)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_the_degrees_of_freedom_are_satterthwaites_as_the_matrices_define_them(correlation: float) -> None:
    sizes = np.array([1.0, 2, 5, 7, 30])
    codes = np.repeat(np.arange(5), sizes.astype(int))
    count = len(codes)
    same = codes[:, None] == codes
    model = np.where(same, correlation, 0.0) + np.eye(count) * (1 - correlation)
    annihilator = np.eye(count) - np.ones((count, count)) / count
    columns = [
        annihilator[:, codes == cluster].sum(axis=1) / math.sqrt(1 - sizes[cluster] / count) for cluster in range(5)
    ]
    matrix = np.stack(columns).dot(model).dot(np.stack(columns).T)
    expected = np.trace(matrix) ** 2 / np.trace(matrix @ matrix)
    assert intervals._freedom(sizes, correlation) == pytest.approx(max(expected, 1))


def test_clusters_of_one_row_are_no_clusters() -> None:
    values = rows(5, 25)
    alone, apart = spread(values - values.mean(), None), spread(values - values.mean(), np.arange(25))
    assert alone.error == pytest.approx(apart.error)
    assert alone.freedom == pytest.approx(apart.freedom)


def test_correlated_rows_widen_the_interval() -> None:
    values = np.repeat(rows(6, 20), 10)
    codes = np.repeat(np.arange(20), 10)
    wide, narrow = of_mean(values, codes, (0.0, 1.0), 0.95), of_mean(values, None, (0.0, 1.0), 0.95)
    assert wide is not None and narrow is not None
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def ratio(sums: np.ndarray, _rows: np.ndarray) -> np.ndarray:
    return np.asarray(sums[:, 0] / sums[:, 1])


def ratio_rows(size: int) -> np.ndarray:
    return np.stack([rows(7, size), 1 + rows(8, size)], axis=1)


def test_bootstrap_and_jackknife_agree_on_what_is_nearly_linear() -> None:
    matrix = ratio_rows(400)
    one = of_figure(matrix, None, ratio, 0.95, 0)
    two = of_figure(matrix, None, ratio, 0.95, 0, method="jackknife")
    assert one is not None and two is not None
    assert (one.method, two.method) == ("bootstrap", "jackknife")
    width = two.high - two.low
    assert one.low == pytest.approx(two.low, abs=0.1 * width)
    assert one.high == pytest.approx(two.high, abs=0.1 * width)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_for_a_sparse_array() -> None:
    matrix = ratio_rows(50)
    first = of_figure(matrix, None, ratio, 0.95, 3)
    assert first == of_figure(matrix, None, ratio, 0.95, 3)
    assert first != of_figure(matrix, None, ratio, 0.95, 4)
    sparser = of_figure(sparse.csr_array(matrix), None, ratio, 0.95, 3)
    assert first is not None and sparser is not None
    assert (sparser.low, sparser.high) == pytest.approx((first.low, first.high))


def test_the_jackknife_takes_over_where_resamples_do_not_reach_as_far_out_as_t_does() -> None:
    matrix = ratio_rows(40)
    found = of_figure(matrix, np.repeat(np.arange(4), 10), ratio, 0.95, 0)
    assert found is not None
    assert found.method == "jackknife by clusters"


def test_the_influence_of_a_row_is_what_it_adds_to_a_mean() -> None:
    values = rows(9, 30)
    influence = intervals.jackknife(values[:, None], lambda sums, count: np.asarray(sums[:, 0] / count))
    assert influence == pytest.approx((values - values.mean()) / 30)


def test_statistics_are_the_same_whether_they_are_kept_whole_or_sparse() -> None:
    metric = make_metric("macro_f1")
    generator = np.random.default_rng(10)
    few, many = StatisticsBuilder(), StatisticsBuilder()
    for number in generator.integers(0, 40, 300):
        true, said = number % 4, number % 5
        value = {f"true {true}": 1.0, f"said {said}": 1.0} | ({f"right {true}": 1.0} if true == said else {})
        few.add(value)
        many.add({**value, **{f"unused {place}": 1.0 for place in range(100)}} if number == 0 else value)
    one, two = few.finish(), many.finish()
    assert not sparse.issparse(one.matrix) and sparse.issparse(two.matrix)
    assert interval_of(metric, one, None, 0.95, 1) is not None
    kept = tuple(name for name in two.names if not name.startswith("unused"))
    places = [two.names.index(name) for name in kept]
    same = Statistics(kept, two.matrix[:, places], two.rows)
    assert figure_of(metric, same) == pytest.approx(figure_of(metric, one))
    found, expected = interval_of(metric, same, None, 0.95, 1), interval_of(metric, one, None, 0.95, 1)
    assert found is not None and expected is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_figure_that_is_no_number_is_none() -> None:
    builder = StatisticsBuilder()
    builder.add(None)
    assert figure_of(make_metric("accuracy"), builder.finish()) is None
    builder.add({"logprob": 0.0, "units": 0.0})
    assert figure_of(make_metric("perplexity"), builder.finish()) is None
