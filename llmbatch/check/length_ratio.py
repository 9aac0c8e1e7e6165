"""The answer is neither much shorter nor much longer than a text of its row."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from llmbatch.check.pieces import words
from llmbatch.check.rule import AgainstSource, Answer, Rule, not_text, text_of
from llmbatch.core.types import FailureKind
from llmbatch.core.words import quote


class LengthRatioSettings(AgainstSource):
    """How many times as long as the text the answer may be."""

    least: float | None = Field(None, ge=0, allow_inf_nan=False, description="times as long as the text, at least")
    most: float | None = Field(None, gt=0, allow_inf_nan=False, description="times as long as the text, at most")
    unit: Literal["characters", "words"] = Field("characters", description="what the length is counted in")
    ignore_below: int = Field(0, ge=0, description="for a text shorter than this the answer is not judged")

    @model_validator(mode="after")
    def _in_order(self) -> LengthRatioSettings:
        if self.least is None and self.most is None:
            raise ValueError("needs least, most, or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least:g} is above most {self.most:g}, so no answer could pass")
        return self


def make(settings: LengthRatioSettings) -> Rule:
    name, unit = settings.field, settings.unit

    def length(text: str) -> int:
        return len(words(text)) if unit == "words" else len(text.strip())

    def judge(answer: Answer) -> str | None:
        source = length(answer.row[name])
        if source == 0 or source < settings.ignore_below:
            return None
        given = length(text_of(answer, settings.part))
        ratio = given / source
        if settings.least is not None and ratio < settings.least:
            wrong, limit = "short", f"at least {settings.least:g} times"
        elif settings.most is not None and ratio > settings.most:
            wrong, limit = "long", f"at most {settings.most:g} times"
        else:
            return None
        lengths = f"{given:,} {unit} for the {source:,} of its source ({quote(name)})"
        return f"the answer is too {wrong}: {lengths}, and it must be {limit} as long"

    return Rule(FailureKind.LENGTH_RATIO, judge, (name,), lambda row: not_text("length_ratio", name, row))


__all__ = ["LengthRatioSettings", "make"]
