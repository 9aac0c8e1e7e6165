"""Translations and their references in; corpus chrF by sacrebleu, from 0 to 100, out. With ``word_order: 2`` it is chrF++."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import Field

from llmbatch.core.imports import extra
from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs
from llmbatch.evals.metrics import sums_of_sacrebleu as by_sacrebleu


class ChrfSettings(MetricSettings):
    char_order: int = Field(6, ge=1, le=20)
    word_order: int = Field(0, ge=0, le=10, description="2 makes it chrF++")
    beta: int = Field(2, ge=1)
    lowercase: bool = False
    whitespace: bool = False


@cache
def _metric(settings: ChrfSettings) -> Any:
    return extra("sacrebleu.metrics", "eval", "the metric chrf").CHRF(**settings.model_dump())


def statistics(example: Example, settings: ChrfSettings) -> dict[str, float] | None:
    return by_sacrebleu.statistics(_metric(settings), example)


def chrf(sums: Mapping[str, Floats], rows: Floats, settings: ChrfSettings) -> Floats:
    return by_sacrebleu.scores(_metric(settings), sums, rows)


KIND = MetricKind(
    ChrfSettings,
    statistics,
    Needs(frozenset({"text", "label"})),
    chrf,
    bounds=lambda _settings: (0.0, 100.0),
    complaint=by_sacrebleu.text_references,
    signature=lambda settings, references: by_sacrebleu.signature(_metric(settings), references),
)
