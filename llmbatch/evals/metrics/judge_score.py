"""The scores that a judge gave an answer in, one a repeat; their mean out.

A repeat whose score could not be read, or is not on the judge's scale, says nothing of the answer and does not count. A row without
any score gets the lowest.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from llmbatch.core.words import short
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs
from llmbatch.evals.metrics.number import as_number


class JudgeScoreSettings(MetricSettings):
    lowest: float = Field(1.0, description="of the judge's scale")
    highest: float = Field(5.0, description="of the judge's scale")

    @model_validator(mode="after")
    def _in_order(self) -> JudgeScoreSettings:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) must be below highest ({self.highest:g})")
        return self


def judge_score(example: Example, settings: JudgeScoreSettings) -> float:
    read = [number for answer in example.answers if (number := as_number(answer)) is not None]
    scores = [number for number in read if settings.lowest <= number <= settings.highest]
    return sum(scores) / len(scores) if scores else settings.lowest


def _doubt(example: Example, settings: JudgeScoreSettings) -> str | None:
    for answer in example.answers:
        number = as_number(answer)
        if answer is not None and number is None:
            return f"the judge's score was read as {short(answer)}, which is no number"
        if number is not None and not settings.lowest <= number <= settings.highest:
            scale = f"{settings.lowest:g} to {settings.highest:g}"
            return f"the judge gave {number:g}, and its scale is set to {scale} (lowest, highest)"
    return None


KIND = MetricKind(
    JudgeScoreSettings,
    judge_score,
    Needs(frozenset({"number", "label", "text"}), references=False),
    bounds=lambda settings: (settings.lowest, settings.highest),
    doubt=_doubt,
)
