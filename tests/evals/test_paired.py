"""Differences of runs against the tests and formulas that they stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from llmbatch.evals.base import Value, make_metric
from llmbatch.evals.paired import Difference, difference, holm, pair
from llmbatch.evals.statistics import Statistics, StatisticsBuilder, figure_of


def statistics(values: list[Value]) -> Statistics:
    builder = StatisticsBuilder()
    for value in values:
        builder.add(value)
    return builder.finish()


def between(metric: Any, first: list[Any], second: list[Any], clusters: Any = None) -> Difference:
    every = np.arange(len(first))
    codes = None if clusters is None else np.asarray(clusters)
    pairs, _ = pair(statistics(first), statistics(second), (every, every), codes)
    found = difference(make_metric(metric), pairs, 0.95, 0)
    assert found is not None
    return found


def values(seed: int, size: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).random(size)]


def test_swapping_every_way_gives_the_p_value_of_the_exact_permutation_test() -> None:
    first, second = values(1, 9), values(2, 9)
    expected = stats.permutation_test(
        (np.array(second), np.array(first)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    found = between("rouge", first, second)
    assert found.test == "permutation"
    assert found.p == pytest.approx(expected.pvalue)


def test_swapping_at_random_is_near_the_p_value_of_students_test() -> None:
    first = values(3, 60)
    second = [min(1.0, one + 0.1 * two) for one, two in zip(first, values(4, 60), strict=True)]
    second[:25] = values(5, 25)
    assert between("rouge", first, second).p == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=0.02)


def test_very_many_rows_have_the_p_value_of_students_test() -> None:
    first, second = values(6, 6000), values(7, 6000)
    found = between("rouge", first, second)
    assert found.test == "t"
    assert found.p == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert found.interval is not None
    expected = stats.ttest_rel(second, first).confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))


def test_binary_rows_have_the_interval_of_bonett_and_price() -> None:
    # 7 won and 2 lost of 30: shares of 8/32 and 3/32 once one more of each is counted
    first = [0.0] * 7 + [1.0] * 2 + [1.0] * 21
    second = [1.0] * 7 + [0.0] * 2 + [1.0] * 21
    won, lost = 8 / 32, 3 / 32
    half = stats.norm.ppf(0.975) * math.sqrt((won + lost - (won - lost) ** 2) / 32)
    found = between("accuracy", first, second).interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((won - lost - half, won - lost + half))


def test_rows_that_a_metric_says_nothing_of_in_one_run_do_not_count() -> None:
    first: list[Value] = [None, 0.2, 0.4, 0.9]
    second: list[Value] = [0.1, 0.3, None, 1.0]
    found = between("rouge", first, second)
    assert found.rows == 2
    assert (found.first, found.second) == pytest.approx((0.55, 0.65))


@pytest.mark.parametrize("labels", [3, 60], ids=["whole", "sparse"])
def test_runs_that_name_different_labels_are_compared_by_the_labels_of_both(labels: int) -> None:
    def row(true: int, said: int) -> Value:
        return {f"true {true}": 1.0, f"said {said}": 1.0} | ({f"right {true}": 1.0} if true == said else {})

    true = [place % labels for place in range(180)]
    first = [row(each, each if place % 4 else labels) for place, each in enumerate(true)]
    second = [row(each, each if place % 9 else labels + 1) for place, each in enumerate(true)]
    found = between("macro_f1", first, second)
    assert found.second == pytest.approx(figure_of(make_metric("macro_f1"), statistics(second)))
    assert found.value > 0
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high


def test_the_smallest_difference_that_shows_is_seen_in_80_of_100_times() -> None:
    generator = np.random.default_rng(8)
    first = generator.random(50)
    apart = between("rouge", list(first), list(first + generator.normal(0, 0.2, 50)))
    assert apart.detectable is not None
    seen = 0
    for _ in range(300):
        gains = generator.normal(apart.detectable, 0.2, 50)
        seen += stats.ttest_1samp(gains, 0).pvalue < 0.05
    assert 0.65 < seen / 300 < 0.92


def test_p_values_side_by_side_are_those_of_holms_method() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, 0.9]) == [None, 1.0, 1.0]
    assert holm([]) == []
