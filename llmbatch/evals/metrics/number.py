"""A number and its references in; 1 where it is one of them within the tolerance, else 0, out."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of


class NumberSettings(MetricSettings):
    absolute: float = Field(0.0, ge=0, description="how far from the reference a number may be")
    relative: float = Field(1e-9, ge=0, description="the same, as a part of the reference")


def as_number(value: Any) -> float | None:
    """A number, or the text of one with commas between thousands; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value.replace(",", "") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def number(example: Example, settings: NumberSettings) -> float:
    """The share of the repeats whose number is near enough."""
    wanted = [found for reference in example.references if (found := as_number(reference)) is not None]

    def near(answer: Any) -> bool:
        given = as_number(answer)
        return given is not None and any(
            abs(given - right) <= max(settings.absolute, settings.relative * abs(right)) for right in wanted
        )

    return share_of(example.answers, near)


def _complaint(example: Example, _settings: NumberSettings) -> str | None:
    wrong = [reference for reference in example.references if as_number(reference) is None]
    return f"its reference {short(wrong[0])} is no number" if wrong else None


KIND = MetricKind(NumberSettings, number, Needs(frozenset({"number", "text", "label"})), complaint=_complaint)
