"""The scores of several tasks in; one figure over all of them, with its interval, out, and as ``group.json``.

The figure is the mean of the tasks' first metrics: each counts the same, or by its rows. Tasks are independent of each other, so
the squares of the halves of their intervals add up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmbatch.core.errors import FolderError, JobError
from llmbatch.core.files import atomic_write
from llmbatch.evals.scores import Figure, Scores

GROUP = "group.json"


class GroupScores(NamedTuple):
    """A group's figure over the first metrics of its tasks. ``figure`` is None where a task has none."""

    name: str
    metric: str
    weight: Literal["rows", "tasks"]
    figure: Figure | None
    tasks: Mapping[str, Figure]


def group_scores(name: str, weight: Literal["rows", "tasks"], scores: Sequence[Scores]) -> GroupScores:
    """Raises ``JobError`` where the tasks' first metrics are not the same."""
    metric = one_metric(name, {each.scored.task: each.metrics[0].kind_name for each in scores})
    figures = {each.scored.task: each.overall.figures[each.metrics[0].name] for each in scores}
    return GroupScores(name, metric, weight, _mean(list(figures.values()), weight), figures)


def one_metric(name: str, firsts: Mapping[str, str]) -> str:
    """What the first metrics of a group's tasks are, given by task. Raises ``JobError`` where they are not the same."""
    tasks = {metric: task for task, metric in firsts.items()}
    if len(tasks) > 1:
        seen = ", ".join(f"{metric} of {task}" for metric, task in tasks.items())
        raise JobError(f"{name}: the figure of a group is over one metric, and the first ones of its tasks are {seen}")
    return next(iter(tasks))


def _mean(figures: Sequence[Figure], weight: str) -> Figure | None:
    weights = [float(figure.rows) if weight == "rows" else 1.0 for figure in figures]
    total = sum(weights)
    values = [figure.value for figure in figures if figure.value is not None]
    if len(values) < len(figures) or not total:
        return None
    mean = sum(part * value for part, value in zip(weights, values, strict=True)) / total
    halves = [
        (figure.high - figure.low) / 2 for figure in figures if figure.low is not None and figure.high is not None
    ]
    rows, left_out = sum(figure.rows for figure in figures), sum(figure.left_out for figure in figures)
    if len(halves) < len(figures):
        return Figure(mean, None, None, "none", rows, left_out)
    half = math.sqrt(sum((part / total * each) ** 2 for part, each in zip(weights, halves, strict=True)))
    return Figure(mean, mean - half, mean + half, "independent tasks", rows, left_out)


def read_group(folder: Path) -> GroupScores | None:
    """What was written of a group; None where nothing was. Raises ``FolderError``."""
    path = folder / GROUP
    try:
        body = json.loads(path.read_bytes())
        figure = None if body["figure"] is None else Figure(**body["figure"])
        tasks = {name: Figure(**each) for name, each in body["tasks"].items()}
        return GroupScores(body["group"], body["metric"], body["weight"], figure, tasks)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{path}: cannot be read: {error!r}; the same llmbatch eval again writes it anew") from error


def write_group(scores: GroupScores, folder: Path) -> None:
    """Raises ``WriteError``."""
    body: dict[str, Any] = {
        "group": scores.name,
        "metric": scores.metric,
        "weight": scores.weight,
        "figure": None if scores.figure is None else scores.figure._asdict(),
        "tasks": {name: figure._asdict() for name, figure in scores.tasks.items()},
    }
    atomic_write(folder / GROUP, json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


__all__ = ["GROUP", "GroupScores", "group_scores", "one_metric", "read_group", "write_group"]
