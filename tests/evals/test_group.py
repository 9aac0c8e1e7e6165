"""One figure over several tasks, with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.evals.base import make_metrics
from llmbatch.evals.group import group_scores, write_group
from llmbatch.evals.scores import Counts, Figure, Part, Scored, Scores


def scores(task: str, value: float | None, half: float | None, rows: int, metric: str = "accuracy") -> Scores:
    low, high = (None, None) if half is None or value is None else (value - half, value + half)
    part = Part(Counts(rows, 0, 0, None), {metric: Figure(value, low, high, "exact", rows, 0)})
    return Scores(Scored(task, "d", "s", "m"), make_metrics([metric]), {}, part, {}, 0.95, 0)


def test_each_task_counts_the_same_or_by_its_rows() -> None:
    both = [scores("a", 0.5, 0.1, 100), scores("b", 0.9, 0.1, 300)]
    same, by_rows = group_scores("g", "tasks", both).figure, group_scores("g", "rows", both).figure
    assert same is not None and by_rows is not None
    assert (same.value, same.rows) == (pytest.approx(0.7), 400)
    assert by_rows.value == pytest.approx(0.8)


def test_the_interval_is_that_of_independent_tasks() -> None:
    figure = group_scores("g", "tasks", [scores(name, 0.5, 0.2, 10) for name in "abcd"]).figure
    assert figure is not None
    assert (figure.low, figure.high) == (pytest.approx(0.4), pytest.approx(0.6))


def test_a_task_without_a_figure_leaves_the_group_without_one_and_one_without_an_interval_it_without_that() -> None:
    assert group_scores("g", "tasks", [scores("a", 0.5, 0.1, 9), scores("b", None, None, 0)]).figure is None
    figure = group_scores("g", "tasks", [scores("a", 0.5, 0.1, 9), scores("b", 0.7, None, 1)]).figure
    assert figure is not None
    assert (figure.value, figure.low) == (pytest.approx(0.6), None)


def test_tasks_whose_first_metrics_differ_have_no_figure_together() -> None:
    with pytest.raises(JobError, match="accuracy of a, number of b"):
        group_scores("g", "tasks", [scores("a", 1, 0.1, 9), scores("b", 1, 0.1, 9, "number")])


def test_a_group_is_written_with_its_tasks(tmp_path: Path) -> None:
    write_group(group_scores("g", "tasks", [scores("a", 0.5, 0.1, 100), scores("b", 0.9, 0.1, 300)]), tmp_path)
    body: dict[str, Any] = json.loads((tmp_path / "group.json").read_bytes())
    assert (body["group"], body["metric"], list(body["tasks"])) == ("g", "accuracy", ["a", "b"])
    assert body["figure"]["value"] == pytest.approx(0.7)
