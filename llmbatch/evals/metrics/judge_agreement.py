"""The scores that a judge gave the same answer at each repeat in; Krippendorff's alpha out: how far it agrees with itself.

1 is full agreement, 0 what chance would give. ``interval`` is for numbers, of which near ones agree more than far ones; ``nominal``
for names, which are the same or not. A row with fewer than two scores that could be read says nothing and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np

from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs
from llmbatch.evals.metrics.accuracy import label_of
from llmbatch.evals.metrics.number import as_number


class JudgeAgreementSettings(MetricSettings):
    level: Literal["interval", "nominal"] = "interval"


def counts(example: Example, settings: JudgeAgreementSettings) -> dict[str, float] | None:
    """The parts of alpha that are sums over rows: how its own scores differ, and what all scores' difference is made of."""
    if settings.level == "interval":
        scores = [number for answer in example.answers if (number := as_number(answer)) is not None]
        if (several := len(scores)) < 2:
            return None
        square = sum(score**2 for score in scores)
        own = square - sum(scores) ** 2 / several  # sum of squared differences of the pairs, by the number of scores
        return {"scores": several, "within": own * several / (several - 1), "sum": sum(scores), "square": square}
    labels = Counter(str(label_of(answer, ignore_case=False)) for answer in example.answers if answer is not None)
    if (several := labels.total()) < 2:
        return None
    differ = several - sum(number * (number - 1) for number in labels.values()) / (several - 1)
    return {"scores": several, "within": differ, **{f"label {label}": number for label, number in labels.items()}}


def alpha(sums: Mapping[str, Floats], rows: Floats, settings: JudgeAgreementSettings) -> Floats:
    """1 - (observed disagreement / expected disagreement)."""
    scores = sums["scores"]
    if settings.level == "interval":
        expected = (scores * sums["square"] - sums["sum"] ** 2) / (scores - 1)
    else:
        same = np.zeros(len(rows))
        for name, number in sums.items():
            if name.startswith("label "):
                same += number * (number - 1)
        expected = scores - same / (scores - 1)
    return np.asarray(1 - sums["within"] / np.where(expected > 0, expected, np.nan))


def _doubt(example: Example, _settings: JudgeAgreementSettings) -> str | None:
    once = len(example.answers) == 1
    return "it was judged once; for the judge's agreement with itself set repeats to 2 or more" if once else None


KIND = MetricKind(
    JudgeAgreementSettings,
    counts,
    Needs(frozenset({"number", "label", "text"}), references=False),
    alpha,
    bounds=lambda _settings: (-1.0, 1.0),
    interval="jackknife",
    by_row=False,
    doubt=_doubt,
)
