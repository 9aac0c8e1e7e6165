"""The class of a text: what a model with a classification head makes of it.

    program: classify                                            # of the field text; --map text=FIELD for another

The row's value is the name of the likeliest class, by the model's own names, and ``details`` tell all of them, in the model's
order:

    {"probabilities": {"negative": 0.02, "neutral": 0.11, "positive": 0.87}}
"""

from __future__ import annotations

import json
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.numbers import plain
from llmbatch.core.types import Pooling
from llmbatch.programs.base import Complete, Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.embed import TEXT
from llmbatch.programs.numbers import asking, pooling_of


class ClassifySettings(BaseModel):
    """What is told of the classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    activation: bool | None = Field(
        None, description="probabilities, and not the model's raw numbers; by default as the model has it"
    )


def classify(row: RowAsk) -> Program:
    ask = asking(row.ask(), _pooling(row.settings))
    del row
    answer = yield ask
    if answer is None:
        return Incomplete()
    numbers, names = answer.value, _names(answer.completion.text)
    likeliest = max(range(len(numbers)), key=numbers.__getitem__)
    return Complete(names[likeliest], {"probabilities": dict(zip(names, plain(numbers), strict=True))})


def _pooling(settings: ClassifySettings) -> Pooling:
    return pooling_of("classify", activation=settings.activation)


@lru_cache(maxsize=16)
def _names(text: str) -> tuple[str, ...]:
    """The names of the classes; of some with the same name, which models have, the later ones with a number behind it."""
    names: list[str] = []
    for name in json.loads(text):
        number = 1
        while (told := name if number == 1 else f"{name} ({number})") in names:
            number += 1
        names.append(told)
    return tuple(names)


KIND = ProgramKind(
    classify,
    ClassifySettings,
    keeps_row=False,
    pooling=_pooling,
    default_prompts=TEXT,
)

__all__ = ["KIND", "ClassifySettings"]
