"""A query and documents in; the documents in order, those that fit the query best first, out: by a cross-encoder, or by vectors.

    program: rerank                                              # of the fields query and documents, a list
    program: {name: rerank, settings: {documents: hits.texts, top_n: 5, encoder: bi}}

The row's value is the order, with the place of each document in the row's list and its score:

    [{"index": 2, "score": 0.98}, {"index": 0, "score": 0.41}, ...]

``--map query=FIELD`` names another field for the query. A document is a text, or whatever a prompt ``document`` of the job's own
makes a text of. Documents whose scores are equal stay in their order.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llmbatch.core.types import Failure
from llmbatch.core.words import short
from llmbatch.programs.base import Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.score_pairs import PAIR, PairSettings, asks_of, scores_of
from llmbatch.programs.shots import field_of, unusable

_USUAL = 16  # documents of a row


class RerankSettings(PairSettings):
    """Which documents are ranked, and how."""

    documents: str = Field("documents", description="the field of the row with the documents, a list; dots go deeper")
    top_n: int | None = Field(None, ge=1, description="only so many of them, the best; by default all")
    texts: bool = Field(False, description="each with its document, besides the place of that")


def rerank(row: RowAsk) -> Program:
    settings: RerankSettings = row.settings
    documents = field_of(row, settings.documents)
    if not isinstance(documents, list | tuple) or not documents:
        said = f"its documents ({settings.documents}) are {short(documents)}, and must be a list of texts"
        asks: Any = unusable(row, said)
    else:
        asks = asks_of(row, settings, list(documents))
    del row
    if isinstance(asks, Failure):
        yield asks
        return Incomplete()
    if not settings.texts:
        documents = ()
    scores = scores_of((yield asks), settings)
    if scores is None:
        return Incomplete()
    ranked = sorted(range(len(scores)), key=lambda at: -scores[at])[: settings.top_n]
    return [
        {"index": at, "score": scores[at], **({"document": documents[at]} if settings.texts else {})} for at in ranked
    ]


KIND = ProgramKind(
    rerank,
    RerankSettings,
    lambda _: tuple(PAIR),
    lambda _: _USUAL,
    keeps_row=False,
    pooling=lambda settings: settings.pooling,
    default_prompts=PAIR,
)

__all__ = ["KIND", "RerankSettings"]
