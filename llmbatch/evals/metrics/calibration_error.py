"""The likelihoods of a row's choices in; the expected calibration error out: how far confidence is from being right.

The choices' likelihoods are made probabilities that sum to 1. Rows are put into bins of equal width by that of the likeliest
choice; in each, the mean confidence is held against the share of right ones. A failed row has no confidence and is left out. The
figure of few rows is too high, since it adds up the noise of every bin: so its interval is made with the jackknife, which does not
add to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from llmbatch.evals.base import Example, Floats, MetricKind, Needs
from llmbatch.evals.metrics.choice_accuracy import ChoiceSettings, logprobs, of_choices, right_places


class CalibrationSettings(ChoiceSettings):
    bins: int = Field(10, ge=1, le=1000)


def probabilities(logprobs: Sequence[float]) -> Floats:
    """What the likelihoods are as parts of their sum."""
    found: Floats = np.exp(np.array(logprobs) - max(logprobs))
    return np.asarray(found / found.sum())


def counts(example: Example, settings: CalibrationSettings) -> dict[str, float] | None:
    found = logprobs(example, settings)
    if found is None:
        return None
    likelihoods = probabilities(found)
    chosen = int(likelihoods.argmax())
    confidence = float(likelihoods[chosen])
    place = min(int(confidence * settings.bins), settings.bins - 1)
    return {f"gap {place}": confidence - (chosen in right_places(example))}


def calibration_error(sums: Mapping[str, Floats], rows: Floats, _settings: CalibrationSettings) -> Floats:
    total = np.zeros(len(rows))
    for gap in sums.values():
        total += np.abs(gap)
    return np.asarray(total / rows)


KIND = MetricKind(
    CalibrationSettings,
    counts,
    Needs(frozenset({"likelihood"})),
    calibration_error,
    higher_is_better=False,
    interval="jackknife",
    by_row=False,
    complaint=of_choices,
)
