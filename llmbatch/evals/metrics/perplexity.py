"""The likelihoods of texts in; how surprised the model was for each word, byte or token out. Lower is better.

Over all texts together: the sum of their log-likelihoods by the sum of their units. Words are what white space parts, as in
lm-eval. A failed row has no likelihood and is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs, unbounded

_SPACE = re.compile(r"\s+")


class PerplexitySettings(MetricSettings):
    unit: Literal["word", "byte", "token", "bits_per_byte"] = "word"


def counts(example: Example, settings: PerplexitySettings) -> dict[str, float] | None:
    """The text's log-likelihood, that of its windows summed, and its units."""
    if not example.scores:
        return None
    text = "".join(example.choices)
    units = {
        "word": len(_SPACE.split(text)),
        "byte": len(text.encode()),
        "bits_per_byte": len(text.encode()),
        "token": sum(score.tokens for score in example.scores),
    }[settings.unit]
    return {"logprob": sum(score.logprob for score in example.scores), "units": units}


def perplexity(sums: Mapping[str, Floats], _rows: Floats, settings: PerplexitySettings) -> Floats:
    surprise = -sums["logprob"] / sums["units"]
    return np.asarray(surprise / math.log(2) if settings.unit == "bits_per_byte" else np.exp(surprise))


KIND = MetricKind(
    PerplexitySettings,
    counts,
    Needs(frozenset({"likelihood"}), references=False),
    perplexity,
    higher_is_better=False,
    bounds=unbounded,
)
