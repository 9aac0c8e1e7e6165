"""Examples and a task's metrics in; the figures with their intervals, overall and by category, out, and as ``scores.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.evals.base import Example, Metric

SCORES = "scores.json"


class Scored(NamedTuple):
    """What was scored, so that two runs can be seen to be comparable."""

    task: str
    task_digest: str
    """Of what decides the questions and how answers are read: runs with different ones are not compared."""
    dataset: str
    """A fingerprint of the data set."""
    model: str


class Figure(NamedTuple):
    """A metric's figure over some rows; ``low`` and ``high`` are ``None`` where there are too few rows for an interval."""

    value: float | None
    low: float | None
    high: float | None
    method: str
    rows: int
    left_out: int


class Counts(NamedTuple):
    """How many rows there are, how many failed, in how many others an answer could not be read, how many clusters there are."""

    rows: int
    failed: int
    unreadable: int
    clusters: int | None


class Part(NamedTuple):
    """The figures of all rows or of a category, by the metric's name."""

    counts: Counts
    figures: Mapping[str, Figure]


class Scores(NamedTuple):
    """All figures of a run."""

    scored: Scored
    metrics: Sequence[Metric]
    overall: Part
    categories: Mapping[str, Part]
    confidence: float
    seed: int


def score(
    examples: Iterable[Example],
    metrics: Sequence[Metric],
    scored: Scored,
    folder: Path | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score the examples, one at a time, and write ``examples.jsonl`` and ``scores.json`` into ``folder``, where one is given.

    Raises ``JobError`` for a metric that the first examples do not fit, before anything is written.
    """
    raise NotImplementedError


def read_scores(folder: Path) -> Scores:
    """The scores of a run folder. Raises ``FolderError``."""
    raise NotImplementedError


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """The JSON form of the scores, in the order in which its keys are written."""
    raise NotImplementedError
