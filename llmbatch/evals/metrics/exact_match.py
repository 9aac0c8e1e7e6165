"""An answer and its references in; 1 where it is the same text as one of them, after normalisation, else 0, out."""

from __future__ import annotations

import re
import string

from pydantic import Field

from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatchSettings(MetricSettings):
    ignore_case: bool = False
    ignore_punctuation: bool = Field(False, description="ASCII punctuation is taken out")
    ignore_articles: bool = Field(False, description="a, an and the are taken out")
    ignore_space: bool = Field(True, description="space at the ends is taken off, and runs of it count as one")


def normalised(text: str, settings: ExactMatchSettings) -> str:
    """The text as it is compared. With everything ignored, it is what SQuAD's own script makes of it, step by step."""
    if settings.ignore_case:
        text = text.lower()
    if settings.ignore_punctuation:
        text = text.translate(_PUNCTUATION)
    if settings.ignore_articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split()) if settings.ignore_space else text


def exact_match(example: Example, settings: ExactMatchSettings) -> float:
    """The share of the repeats whose answer is one of the references."""
    right = {normalised(str(reference), settings) for reference in example.references}
    return share_of(example.answers, lambda answer: normalised(str(answer), settings) in right)


KIND = MetricKind(ExactMatchSettings, exact_match, Needs(frozenset({"text", "label", "number"})))
