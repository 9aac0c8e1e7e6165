"""A share that the task's reader has already worked out in, such as that of the rules which an answer keeps; its mean out."""

from __future__ import annotations

from typing import Any

from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of
from llmbatch.evals.metrics.number import as_number


def share(example: Example, _settings: MetricSettings) -> float:
    """The mean share of the repeats. What is no share is worth nothing."""
    return share_of(example.answers, lambda answer: _as_share(answer) or 0.0)


def _as_share(answer: Any) -> float | None:
    number = float(answer) if isinstance(answer, bool) else as_number(answer)
    return number if number is not None and 0 <= number <= 1 else None


def _doubt(example: Example, _settings: MetricSettings) -> str | None:
    for answer in example.answers:
        if answer is not None and _as_share(answer) is None:
            return f"{short(answer)} was read, and a share lies between 0 and 1"
    return None


KIND = MetricKind(MetricSettings, share, Needs(frozenset({"number"}), references=False), doubt=_doubt)
