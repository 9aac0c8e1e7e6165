"""The likelihoods of a row's choices in; the Brier score out: how far probabilities are from the truth, squared.

Lower is better: 0 is sure and right, 2 sure and wrong. The right choice is the first reference. A failed row has no probabilities
and is left out.
"""

from __future__ import annotations

import numpy as np

from llmbatch.evals.base import Example, MetricKind, Needs
from llmbatch.evals.metrics.calibration_error import probabilities
from llmbatch.evals.metrics.choice_accuracy import ChoiceSettings, logprobs, of_choices, right_places


def brier(example: Example, settings: ChoiceSettings) -> float | None:
    found = logprobs(example, settings)
    if found is None:
        return None
    truth = np.zeros(len(found))
    truth[right_places(example)[0]] = 1
    return float(((probabilities(found) - truth) ** 2).sum())


KIND = MetricKind(
    ChoiceSettings,
    brier,
    Needs(frozenset({"likelihood"})),
    higher_is_better=False,
    bounds=lambda _settings: (0.0, 2.0),
    complaint=of_choices,
)
