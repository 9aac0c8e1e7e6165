"""The likelihoods of a row's choices in; 1 where that of the right one is the greatest, else 0, out.

``normalize`` says by what a likelihood is divided, so that long choices are not at a loss: by nothing (lm-eval's ``acc``), by its
characters (``acc_norm``), its bytes (``acc_bytes``) or its tokens. Of equal ones the first counts.
"""

from __future__ import annotations

from typing import Literal

from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs


class ChoiceSettings(MetricSettings):
    normalize: Literal["none", "length", "bytes", "tokens"] = "none"


def logprobs(example: Example, settings: ChoiceSettings) -> list[float] | None:
    """The log-likelihood of each choice, normalised; None of a failed row."""
    if not example.scores:
        return None
    pairs = list(zip(example.choices, example.scores, strict=True))
    lengths = {
        "none": [1] * len(pairs),
        "length": [len(choice) for choice, _ in pairs],
        "bytes": [len(choice.encode()) for choice, _ in pairs],
        "tokens": [score.tokens for _, score in pairs],
    }[settings.normalize]
    return [score.logprob / max(length, 1) for (_, score), length in zip(pairs, lengths, strict=True)]


def right_places(example: Example) -> list[int]:
    """The places of the right choices. A reference is the text of a choice, or its place, counted from 0."""
    return [
        reference if isinstance(reference, int) else example.choices.index(reference)
        for reference in example.references
    ]


def choice_accuracy(example: Example, settings: ChoiceSettings) -> float:
    found = logprobs(example, settings)
    return float(found is not None and found.index(max(found)) in right_places(example))


def of_choices(example: Example, _settings: MetricSettings) -> str | None:
    """What is wrong with an example whose choices were to be scored."""
    if len(example.scores or ()) != len(example.choices) or len(example.choices) < 2:
        return f"it has {len(example.choices)} choices and {len(example.scores or ())} likelihoods"
    for reference in example.references:
        places = range(len(example.choices))
        if reference not in (places if isinstance(reference, int) else example.choices):
            return f"its reference {short(reference)} is none of its choices {short(list(example.choices))}"
    return None


KIND = MetricKind(ChoiceSettings, choice_accuracy, Needs(frozenset({"likelihood"})), complaint=of_choices)
