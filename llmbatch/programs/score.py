"""Multiple choice by likelihood: how likely the model finds each of some continuations of the row's prompt.

    program: {name: score, settings: {choices: options}}            # the row's field; or the choices: ["yes", "no"]

The row's value is the likeliest choice, and ``details`` tell all of them, in the order of the choices:

    {"chosen": 1, "scores": [{"logprob": -4.1, "greedy": false, "tokens": 2}, {"logprob": -0.7, "greedy": true, "tokens": 1}]}

``logprob`` is the natural logarithm of the probability, summed over the tokens; ``greedy`` says whether the model would have said
exactly this. ``by`` says which is the likeliest: by the sum (``sum``), or by the mean over its tokens or its bytes, so that a long
choice has no disadvantage. With ``rank`` the value is the list of them, the likeliest first. All choices of a row are sent
together, so that the engine computes their prompt once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from llmbatch.core.types import Failure, Prompt, Score
from llmbatch.core.words import short
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.shots import ShotSettings, asked, field_of, unusable

By = Literal["sum", "tokens", "bytes"]


class ScoreSettings(ShotSettings):
    """What is scored, and by what the likeliest is told."""

    choices: str | tuple[str, ...] = Field(
        description="the field of the row with the choices, a list of texts (dots go deeper), or the choices of every row"
    )
    by: By = Field(
        "sum", description="the likeliest by the sum of log-probabilities, or by their mean by tokens or bytes"
    )
    rank: bool = Field(False, description="the value is all choices, the likeliest first")


def score(row: RowAsk) -> Program:
    settings: ScoreSettings = row.settings
    choices = field_of(row, settings.choices) if isinstance(settings.choices, str) else settings.choices
    ask = asked(row, settings)
    if not isinstance(ask, Failure) and (problem := _problem(choices)) is not None:
        ask = unusable(row, f"its choices ({settings.choices}) are {short(choices)}, {problem}")
    del row
    if isinstance(ask, Failure):
        yield ask
        return Incomplete()
    answers = yield [continued(ask, settings.delimiter + choice) for choice in choices]
    if None in answers:
        return Incomplete()
    scores: list[Score] = [answer.value for answer in answers]
    best, *_ = ranked = ranking(choices, scores, settings.by)
    value = [choices[at] for at in ranked] if settings.rank else choices[best]
    return Complete(value, {"chosen": best, "scores": [each._asdict() for each in scores]}, logprobs=False)


def continued(ask: Ask, target: str) -> Ask:
    """How likely the text is behind the prompt. Spaces that a plain prompt ends with count as the start of the text.

    Tokens hold the space before a word, so that the tokens of prompt and text together are those that such a text has.
    """
    text = ask.prompt.text
    if text is not None and not ask.prompt.prefill and text != (bare := text.rstrip()) and bare:
        ask, target = replace(ask, prompt=Prompt(text=bare)), text[len(bare) :] + target
    return replace(ask, target=target, constraint=None, samples=1)


def ranking(choices: Sequence[str], scores: Sequence[Score], by: By) -> list[int]:
    """The places of the choices, the likeliest first; equals as they are."""

    def of(at: int) -> float:
        length = {"sum": 1, "tokens": scores[at].tokens, "bytes": len(choices[at].encode())}[by]
        return -scores[at].logprob / max(1, length)

    return sorted(range(len(choices)), key=of)


def _problem(choices: Any) -> str | None:
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        return "and must be a list of texts"
    if not all(isinstance(choice, str) and choice for choice in choices):
        return "and every one must be a text that is not empty"
    return None


def _prompts(_settings: Any) -> Sequence[str]:
    return ("main",)


def _requests(settings: ScoreSettings) -> int:
    return 4 if isinstance(settings.choices, str) else len(settings.choices)


def scores_of(details: Mapping[str, Any] | None) -> list[Score]:
    """The scores in a record's details; none where there are none."""
    return [Score(**each) for each in (details or {}).get("scores", ())]


KIND = ProgramKind(
    score, ScoreSettings, _prompts, _requests, keeps_row=False, first=lambda row: asked(row, row.settings)
)

__all__ = ["KIND", "By", "ScoreSettings", "continued", "ranking", "scores_of"]
