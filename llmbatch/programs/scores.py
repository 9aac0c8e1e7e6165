"""Samples in; what each of them is worth, by a judge's answer, by how many agree, or by a number that it holds itself, out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import Accepted, Failure
from llmbatch.programs.base import Ask, RowAsk
from llmbatch.programs.steps import spread


class JudgeSettings(BaseModel):
    """A prompt that judges samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field("judge", description="one of program.prompts")
    compare: bool = Field(False, description="all samples in one prompt, which answers with the number of the best")
    variable: str = Field("", description="what the prompt has the sample in: response, or for all of them responses")
    score: str = Field(
        "", description="the key of the judge's JSON answer, dots go deeper: score, or of a comparison best"
    )

    @model_validator(mode="before")
    @classmethod
    def _text_is_its_prompt(cls, value: Any) -> Any:
        return {"prompt": value} if isinstance(value, str) else value

    @property
    def takes(self) -> str:
        return self.variable or ("responses" if self.compare else "response")

    @property
    def gives(self) -> str:
        return self.score or ("best" if self.compare else "score")


@dataclass(slots=True)
class Sample:
    """One sample that passed its check, and what became of it."""

    accepted: Accepted
    score: float | None = None
    judged: Any = None

    def entry(self) -> dict[str, Any]:
        judged = {} if self.judged is None else {"judged": self.judged}
        return {"output": self.accepted.value, "score": self.score, **judged}


def judge_each(
    row: RowAsk, judge: JudgeSettings, samples: Sequence[Sample], seed: int | None
) -> Generator[Any, Any, None]:
    """Ask about each sample alone. Where the judge itself is asked several times, its scores count on average."""
    given = [_given(judge.takes, sample.accepted.value) for sample in samples]
    asks = [_seeded(row.ask(judge.prompt, **variables), seed) for variables in given]
    for sample, answer in zip(samples, (yield asks), strict=True):
        several = isinstance(answer, list)
        said = [each.value for each in (answer if several else [answer]) if each is not None]
        scores = [score for value in said if (score := number_in(value, judge.gives)) is not None]
        sample.score = sum(scores) / len(scores) if scores else None
        sample.judged = (said if several else said[0]) if said else None


def compare(
    row: RowAsk, judge: JudgeSettings, samples: Sequence[Sample], seed: int | None
) -> Generator[Any, Any, None]:
    """Ask once about all samples."""
    if len(samples) == 1:
        samples[0].score = 1
    if len(samples) < 2:
        return
    given = _given(judge.takes, [sample.accepted.value for sample in samples])
    answer = yield _seeded(row.ask(judge.prompt, **given), seed)
    if isinstance(answer, list):  # judged several times: the most frequent word, of equals the first
        numbers = Counter(number_in(each.value, judge.gives) for each in answer if each is not None)
        best = max(numbers, key=numbers.__getitem__, default=None)
        judged: Any = [each.value for each in answer if each is not None]
    else:
        best, judged = (None, None) if answer is None else (number_in(answer.value, judge.gives), answer.value)
    told = best is not None and best in range(1, len(samples) + 1)
    for number, sample in enumerate(samples, 1):
        sample.score = float(number == best) if told else None
    samples[0 if best is None or not told else int(best) - 1].judged = judged


def count_votes(keys: tuple[str, ...] | bool, samples: Sequence[Sample]) -> None:
    """The score of a sample is how many have the same value: as a whole, or under these keys."""
    votes = [_vote(sample.accepted.value, keys) for sample in samples]
    counts = Counter(vote for vote in votes if vote is not None)
    for sample, vote in zip(samples, votes, strict=True):
        sample.score = None if vote is None else counts[vote]


def _vote(value: Any, keys: tuple[str, ...] | bool) -> str | None:
    """What samples have in common that count as equal; None where one has nothing to say."""
    if isinstance(keys, tuple):
        value = [_at(value, key) for key in keys]
        if None in value:
            return None
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _given(name: str, value: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    spread(name, value, variables)
    return variables


def _at(value: Any, path: str) -> Any:
    """What is at a path of keys in a value, None where there is nothing."""
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def number_in(value: Any, path: str = "") -> float | None:
    """The number at a path in a JSON value, or that a text is; None where there is none."""
    found = _at(value, path) if isinstance(value, Mapping) else value
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        number = float(found)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return found if isinstance(found, int) else number


def seed_of(ask: Ask, otherwise: int | None) -> int | None:
    """The seed that is asked with, or another one where there is none."""
    seed = ask.seed if ask.seed is not None else ask.sampling.get("seed")
    return otherwise if seed in (None, NO_SEED) else seed


def _seeded(ask: Ask | Failure, seed: int | None) -> Ask | Failure:
    """What a judge is asked; one that is not greedy has a seed too, so that it says the same another time."""
    if isinstance(ask, Failure) or ask.sampling.get("temperature") == 0:
        return ask
    return replace(ask, seed=seed_of(ask, seed))


__all__ = ["JudgeSettings", "Sample", "compare", "count_votes", "judge_each", "number_in", "seed_of"]
