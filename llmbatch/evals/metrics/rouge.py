"""A summary and its references in; ROUGE by rouge-score, from 0 to 1, out: the mean of the rows' figures.

Its words are runs of a to z and 0 to 9, so it is for English and what is written like it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from llmbatch.core.imports import extra
from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of
from llmbatch.evals.metrics import sums_of_sacrebleu as by_sacrebleu


class RougeSettings(MetricSettings):
    type: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeL"
    figure: Literal["fmeasure", "precision", "recall"] = "fmeasure"
    stemmer: bool = False


@cache
def _scorer(settings: RougeSettings) -> Any:
    module = extra("rouge_score.rouge_scorer", "eval", "the metric rouge")
    return module.RougeScorer([settings.type], use_stemmer=settings.stemmer)


def rouge(example: Example, settings: RougeSettings) -> float:
    """Of several references the one that fits best counts, by its F measure; of several repeats the mean."""

    def of_one(answer: Any) -> float:
        best = _scorer(settings).score_multi(list(example.references), str(answer))[settings.type]
        return float(getattr(best, settings.figure))

    return share_of(example.answers, of_one)


def _complaint(example: Example, settings: RougeSettings) -> str | None:
    for reference in example.references:
        if isinstance(reference, str) and not any(c.isascii() and c.isalnum() for c in reference):
            return f"its reference {short(reference)} has no word that ROUGE knows (a to z, 0 to 9); take chrf instead"
    return by_sacrebleu.text_references(example, settings)


KIND = MetricKind(RougeSettings, rouge, Needs(frozenset({"text", "label"})), complaint=_complaint)
