"""The vector of a text: what an embedding model makes of it, as numbers of 32 bits.

    program: embed                                               # of the field text; --map text=FIELD for another
    program: {name: embed, settings: {dimensions: 256}}          # of a model that can give fewer (Matryoshka)
    prompt: "query: {{ question }}"                              # what the model wants to be told before or after a text

The row's value is the vector, as a list; ``results.parquet`` has it as a list of fixed size. A prompt file with messages goes
through the model's chat template. Of a row that brings several prompts the value is the list of their vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.numbers import plain
from llmbatch.core.types import Failure, Pooling
from llmbatch.programs.base import Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.numbers import asking, pooling_of

TEXT: Mapping[str, str] = {"main": "{{ text }}"}


class EmbedSettings(BaseModel):
    """Which of a model's vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dimensions: int | None = Field(None, ge=1, description="how many numbers, of a model that can give fewer than all")
    normalize: bool | None = Field(None, description="make vectors as long as 1; by default as the model has it")


def embed(row: RowAsk) -> Program:
    ask = asking(row.ask(), _pooling(row.settings))
    del row
    answer = yield ask
    if isinstance(ask, Failure) or not ask.more:
        return Incomplete() if answer is None else answer.value
    vectors = [None if each is None else plain(each.value) for each in answer]
    return Incomplete(vectors) if None in vectors else vectors


def _pooling(settings: EmbedSettings) -> Pooling:
    return pooling_of("embed", settings.dimensions, settings.normalize)


KIND = ProgramKind(
    embed,
    EmbedSettings,
    keeps_row=False,
    pooling=_pooling,
    gives_vectors=True,
    default_prompts=TEXT,
    several=True,
)

__all__ = ["KIND", "TEXT", "EmbedSettings"]
