"""The answer does not run in circles: no stretch of words comes again and again, one right after the other.

An engine that can looks for the same loops in its tokens and stops there; the check afterwards looks for them in words, wherever
they are in the answer, and in one that was cut off too: to go on from there would be more of the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llmbatch.check.pieces import Piece, pieces
from llmbatch.check.rule import Answer, Rule
from llmbatch.core.sampling import Loops
from llmbatch.core.types import FailureKind
from llmbatch.core.words import quote, share

_JUDGED_FROM = 32  # words; a share of fewer says nothing


class Repetition(BaseModel):
    """What counts as going round in circles. Words, and in the engine tokens; signs count as words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: int = Field(8, ge=2, le=1000, description="how often a stretch comes right after itself before it is a loop")
    shortest: int = Field(
        4,
        ge=1,
        le=1000,
        description="words of the shortest stretch that counts; a shorter loop is seen as a multiple of it",
    )
    longest: int = Field(
        32,
        ge=1,
        le=1000,
        description="words of the longest one; the engine looks at all lengths between at every token",
    )
    share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="also send back an answer of which more than this share of its stretches of the shortest length came before",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Repetition:
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} is above longest {self.longest}")
        return self

    @property
    def loops(self) -> Loops:
        """What an engine is to stop at."""
        return Loops(self.times, self.shortest, self.longest)


def _switched(value: Any) -> Any:
    """``true`` stands for the defaults, ``false`` for no such rule."""
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    if not isinstance(value, bool):
        raise ValueError("is true, false, or a mapping with times, shortest, longest and share")  # noqa: TRY004
    return {} if value else None


RepetitionSettings = Annotated[Repetition | None, BeforeValidator(_switched)]


def make(settings: Repetition) -> Rule:
    def judge(answer: Answer) -> str | None:
        found = list(pieces(answer.text))
        stretches = Counter(_stretches([piece.text for piece in found], settings.shortest))
        # what a loop begins with comes as often as it turns
        if stretches and max(stretches.values()) >= settings.times:
            said = _loop(answer.text, found, settings)
            if said is not None:
                return said
        if settings.share is not None and len(found) >= _JUDGED_FROM:
            again = 1 - len(stretches) / stretches.total()
            if again > settings.share:
                said = f"{share(again)} of its stretches of {settings.shortest} words came before"
                return f"the answer repeats itself: {said}, and at most {share(settings.share)} may"
        return None

    return Rule(FailureKind.REPETITION, judge, early=True)


def _loop(text: str, found: Sequence[Piece], settings: Repetition) -> str | None:
    """The first loop of the shortest stretch, in words for a person."""
    for size in range(settings.shortest, settings.longest + 1):
        if size * settings.times > len(found):
            return None
        run = 0  # of words that are those ``size`` words before
        for place in range(size, len(found)):
            run = run + 1 if found[place].text == found[place - size].text else 0
            if run >= size * (settings.times - 1):
                first = place + 1 - size * settings.times
                stretch = text[found[first].start : found[first + size].start]
                return f"the answer repeats itself: {quote(stretch.strip())} comes {settings.times} times one after the other"
    return None


def _stretches(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(size)), strict=False))


__all__ = ["RepetitionSettings", "make"]
