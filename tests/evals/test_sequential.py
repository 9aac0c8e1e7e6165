from __future__ import annotations

import numpy as np
import pytest

from llmbatch.core.errors import JobError
from llmbatch.evals.base import make_metric
from llmbatch.evals.sequential import ConfidenceSequence, sequence_for


def test_the_interval_only_ever_shrinks_and_holds_the_mean_so_far() -> None:
    sequence = ConfidenceSequence(0.05)
    low, high = 0.0, 1.0
    for value in np.random.default_rng(1).random(3000) < 0.3:
        sequence.add(float(value))
        interval = sequence.interval
        assert low <= interval.low and interval.high <= high
        low, high = interval.low, interval.high
    assert sequence.value is not None
    assert low < sequence.value < high


def test_it_is_narrow_enough_at_about_twice_the_rows_of_an_interval_that_is_looked_at_once() -> None:
    generator = np.random.default_rng(2)
    for p in (0.5, 0.8):
        sequence, rows = ConfidenceSequence(0.05), 0
        while not sequence.is_narrow_enough:
            sequence.add(float(generator.random() < p))
            rows += 1
        once = 1.96**2 * p * (1 - p) / 0.05**2
        assert once < rows < 2.6 * once
        assert sequence.interval.high - sequence.interval.low <= 0.1


def test_it_holds_the_truth_at_every_moment_in_at_least_95_of_100_runs() -> None:
    held = 0
    for seed in range(200):
        sequence = ConfidenceSequence(0.1)
        for value in np.random.default_rng(seed).random(400) < 0.6:
            sequence.add(float(value))
        held += sequence.interval.low <= 0.6 <= sequence.interval.high
    assert held >= 190


def test_the_same_values_give_the_same_interval_and_a_scale_does_not_matter() -> None:
    values = np.random.default_rng(4).random(500)
    plain, again, scaled = ConfidenceSequence(0.05), ConfidenceSequence(0.05), ConfidenceSequence(0.2, (1.0, 5.0))
    for value in values:
        plain.add(float(value))
        again.add(float(value))
        scaled.add(1 + 4 * float(value))
    assert plain.interval == again.interval
    assert scaled.interval.low == pytest.approx(1 + 4 * plain.interval.low)
    assert scaled.interval.high == pytest.approx(1 + 4 * plain.interval.high)


def test_a_cluster_counts_as_one_unit_and_its_rows_are_not_taken_for_independent() -> None:
    generator = np.random.default_rng(5)
    skills = generator.random(300)
    apart, together = ConfidenceSequence(0.1), ConfidenceSequence(0.1, largest_cluster=10)
    for skill in skills:
        values = generator.random(10) < skill
        together.add(float(values.sum()), 10)
        for value in values:
            apart.add(float(value))
    assert together.interval.low <= 0.5 <= together.interval.high
    assert together.interval.high - together.interval.low > apart.interval.high - apart.interval.low


def test_a_cluster_that_is_larger_than_was_said_is_refused() -> None:
    with pytest.raises(ValueError, match="a cluster of 3 rows"):
        ConfidenceSequence(0.1, largest_cluster=2).add(1.0, 3)


@pytest.mark.parametrize("half", [0.0, -0.1, 0.5, float("nan")])
def test_a_half_width_that_no_interval_has_is_refused(half: float) -> None:
    with pytest.raises(JobError, match=r"more than 0 and less than 0\.5"):
        ConfidenceSequence(half)


@pytest.mark.parametrize("metric", ["bleu", "perplexity", "macro_f1"])
def test_a_metric_that_is_no_bounded_mean_is_refused(metric: str) -> None:
    with pytest.raises(JobError, match="between known bounds"):
        sequence_for(make_metric(metric), 0.05)


def test_a_metrics_bounds_are_those_of_its_sequence() -> None:
    sequence = sequence_for(make_metric("judge_score"), 0.5)
    assert (sequence.interval.low, sequence.interval.high) == (1, 5)
