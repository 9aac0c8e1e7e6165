"""An answer and its references in; 1 where it is equal to one of them, else 0, out."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of


class AccuracySettings(MetricSettings):
    ignore_case: bool = Field(False, description="in text; space at its ends never counts")


def label_of(value: Any, *, ignore_case: bool) -> Any:
    """A value as it is compared: text without the space at its ends, and true and 1 are two values, as in JSON."""
    if isinstance(value, str):
        text = value.strip()
        return text.casefold() if ignore_case else text
    return (bool, value) if isinstance(value, bool) else value


def accuracy(example: Example, settings: AccuracySettings) -> float:
    """The share of the repeats whose answer is one of the references."""
    right = [label_of(reference, ignore_case=settings.ignore_case) for reference in example.references]
    return share_of(example.answers, lambda answer: label_of(answer, ignore_case=settings.ignore_case) in right)


KIND = MetricKind(AccuracySettings, accuracy, Needs(frozenset({"text", "label", "number", "json"})))
