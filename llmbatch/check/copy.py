"""The answer does not copy a text of its row, as a model does that gives a translation up: its runs of words do not stand there.

Words without a letter do not count: numbers stay what they are in every language.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from llmbatch.check.pieces import words
from llmbatch.check.rule import AgainstSource, Answer, Rule, not_text, short_form, text_of
from llmbatch.core.types import FailureKind
from llmbatch.core.words import quote, share


class Copying(AgainstSource):
    """How much of the answer may be taken from the text."""

    most: float = Field(
        0.8, ge=0, le=1, description="share of the answer's runs of words that may stand in the text too"
    )
    words: int = Field(3, ge=1, description="words of a run")
    least: int = Field(
        5, ge=1, description="answers of fewer words are not judged: a name is the same in many languages"
    )


CopySettings = Annotated[Copying | None, BeforeValidator(short_form("field"))]


def make(settings: Copying) -> Rule:
    name = settings.field

    def judge(answer: Answer) -> str | None:
        given = _lettered(text_of(answer, settings.part))
        if len(given) < settings.least:
            return None
        size = min(settings.words, len(given))
        source = _lettered(answer.row[name])
        if given == source:
            return f"the answer is its source ({quote(name)}) over again, word for word"
        there = set(_runs(source, size))
        runs = _runs(given, size)
        copied = sum(run in there for run in runs) / len(runs)
        if copied <= settings.most:
            return None
        said = f"{share(copied)} of its runs of {size} words stand there too, and at most {share(settings.most)} may"
        return f"the answer copies its source ({quote(name)}): {said}"

    return Rule(FailureKind.COPY, judge, (name,), lambda row: not_text("copy", name, row))


def _lettered(text: str) -> list[str]:
    return [word for word in words(text) if not word.isnumeric()]


def _runs(given: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(given[start:] for start in range(size)), strict=False))


__all__ = ["CopySettings", "make"]
