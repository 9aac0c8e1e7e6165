"""Translations and their references in; corpus BLEU by sacrebleu, from 0 to 100, out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from llmbatch.core.imports import extra
from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs
from llmbatch.evals.metrics import sums_of_sacrebleu as by_sacrebleu


class BleuSettings(MetricSettings):
    tokenize: Literal[
        "13a", "intl", "zh", "char", "none", "flores101", "flores200", "spBLEU-1K", "ja-mecab", "ko-mecab"
    ] = "13a"
    lowercase: bool = False
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    effective_order: bool = False


@cache
def _metric(settings: BleuSettings) -> Any:
    return extra("sacrebleu.metrics", "eval", "the metric bleu").BLEU(
        lowercase=settings.lowercase,
        tokenize=settings.tokenize,
        smooth_method=settings.smooth,
        effective_order=settings.effective_order,
        force=True,
    )


def statistics(example: Example, settings: BleuSettings) -> dict[str, float] | None:
    return by_sacrebleu.statistics(_metric(settings), example)


def bleu(sums: Mapping[str, Floats], rows: Floats, settings: BleuSettings) -> Floats:
    return by_sacrebleu.scores(_metric(settings), sums, rows)


KIND = MetricKind(
    BleuSettings,
    statistics,
    Needs(frozenset({"text", "label"})),
    bleu,
    bounds=lambda _settings: (0.0, 100.0),
    complaint=by_sacrebleu.text_references,
    signature=lambda settings, references: by_sacrebleu.signature(_metric(settings), references),
)
