"""The answer's label and the reference's in; F1 of each label, each counting the same, out.

Labels are those of the references and of the answers, as scikit-learn has it, unless the settings name them. An answer that
cannot be read is of no label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs
from llmbatch.evals.metrics.accuracy import label_of


class MacroF1Settings(MetricSettings):
    labels: tuple[str, ...] = Field((), description="those that count; by default all that are there")
    ignore_case: bool = False


def counts(example: Example, settings: MacroF1Settings) -> dict[str, float] | None:
    """How often each label was right, said and true; each repeat counts as a part of one row."""
    if not example.references:  # a row that could not be read
        return None
    reference = _label(example.references[0], settings)
    added = defaultdict(float, {f"true {reference}": 1.0})
    for answer in example.answers:
        if answer is not None:
            label = _label(answer, settings)
            added[f"said {label}"] += 1 / len(example.answers)
            if label == reference:
                added[f"right {label}"] += 1 / len(example.answers)
    return dict(added)


def macro_f1(sums: Mapping[str, Floats], rows: Floats, settings: MacroF1Settings) -> Floats:
    """2 right / (said + true), on average over the labels."""
    labels = {name.partition(" ")[2] for name in sums}
    if settings.labels:
        labels &= {_label(label, settings) for label in settings.labels}
    total, present, none = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    for label in sorted(labels):
        seen = sums.get(f"said {label}", none) + sums.get(f"true {label}", none)
        total += np.where(seen > 0, 2 * sums.get(f"right {label}", none) / np.where(seen > 0, seen, 1), 0)
        present += seen > 0
    return np.asarray(total / present)


def _label(value: object, settings: MacroF1Settings) -> str:
    return str(label_of(value, ignore_case=settings.ignore_case))


def _complaint(example: Example, _settings: MacroF1Settings) -> str | None:
    several = len(example.references) > 1
    return f"it has {len(example.references)} references, and F1 takes one label a row" if several else None


KIND = MetricKind(
    MacroF1Settings,
    counts,
    Needs(frozenset({"text", "label", "number"})),
    macro_f1,
    complaint=_complaint,
)
