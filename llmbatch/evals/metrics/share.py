"""A share that the task's reader has already worked out in, such as that of the rules which an answer keeps; its mean out."""

from __future__ import annotations

from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of
from llmbatch.evals.metrics.number import as_number


def share(example: Example, _settings: MetricSettings) -> float:
    return share_of(example.answers, float)


def _complaint(example: Example, _settings: MetricSettings) -> str | None:
    for answer in example.answers:
        number = float(answer) if isinstance(answer, bool) else as_number(answer)
        if answer is not None and (number is None or not 0 <= number <= 1):
            return f"{short(answer)} was read, and a share lies between 0 and 1"
    return None


KIND = MetricKind(MetricSettings, share, Needs(frozenset({"number"}), references=False), complaint=_complaint)
