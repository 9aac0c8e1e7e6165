"""How well two texts go together, such as a query and a document: by a cross-encoder (a reranker), or by the vectors of both.

    program: score_pairs                                         # of the fields query and document
    program: {name: score_pairs, settings: {encoder: bi}}        # of an embedding model: the cosine of the two vectors

``--map query=FIELD`` names another field for the first text, the setting ``document`` for the second. The row's value is the score.
How likely a model finds a continuation is another thing, which the program ``score`` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.numbers import plain
from llmbatch.core.types import Failure, Pooling
from llmbatch.programs.base import Ask, Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.numbers import asking, cosine, paired, pooling_of
from llmbatch.programs.shots import field_of, unusable

PAIR: Mapping[str, str] = {"main": "{{ query }}", "document": "{{ document }}"}
"""The prompt of the first text, and that of the second, which has it as the variable ``document``."""


class PairSettings(BaseModel):
    """How pairs are scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: Literal["cross", "bi"] = Field(
        "cross",
        description="cross: the model reads both texts together, as rerankers do; bi: their vectors are compared, of any embedding "
        "model",
    )
    activation: bool | None = Field(
        None,
        description="cross: a score from 0 to 1, and not the model's raw number; by default as the model has it",
    )

    @property
    def pooling(self) -> Pooling:
        """What is asked for, of a pair or of each text."""
        return pooling_of("embed") if self.encoder == "bi" else pooling_of("pairs", activation=self.activation)


class ScorePairsSettings(PairSettings):
    """Which texts are scored, and how."""

    document: str = Field("document", description="the field of the row with the second text; dots go deeper")


def score_pairs(row: RowAsk) -> Program:
    settings: ScorePairsSettings = row.settings
    asks = asks_of(row, settings, [field_of(row, settings.document)])
    del row
    if isinstance(asks, Failure):
        yield asks
        return Incomplete()
    scores = scores_of((yield asks), settings)
    return Incomplete() if scores is None else scores[0]


def asks_of(row: RowAsk, settings: PairSettings, documents: list[Any]) -> list[Ask] | Failure:
    """What is asked about a row's query and some documents: each pair, or each text; or why that cannot be."""
    query = row.ask()
    if isinstance(query, Failure):
        return query
    asks: list[Ask] = []
    for number, document in enumerate(documents):
        second = row.ask("document", document=document)
        if isinstance(second, Failure):
            where = f"its document {number}: " if len(documents) > 1 else ""
            return Failure(second.kind, f"{where}{second.message}")
        if settings.encoder == "bi":
            asks.append(second)
            continue
        pair = paired(query, second, settings.pooling)
        if isinstance(pair, str):
            return unusable(row, pair)
        asks.append(pair)
    if settings.encoder == "cross":
        return asks
    return [made for each in (query, *asks) if isinstance(made := asking(each, settings.pooling), Ask)]


def scores_of(answers: list[Any], settings: PairSettings) -> list[float] | None:
    """The scores of the documents; None where an answer is missing."""
    if None in answers:
        return None
    if settings.encoder == "cross":
        return [plain(answer.value)[0] for answer in answers]
    query, *documents = (answer.value for answer in answers)
    return [cosine(query, document) for document in documents]


KIND = ProgramKind(
    score_pairs,
    ScorePairsSettings,
    lambda _: tuple(PAIR),
    lambda settings: 1 if settings.encoder == "cross" else 2,
    keeps_row=False,
    pooling=lambda settings: settings.pooling,
    default_prompts=PAIR,
)

__all__ = ["KIND", "PAIR", "PairSettings", "ScorePairsSettings", "asks_of", "scores_of"]
