"""Translations and their references in; corpus TER by sacrebleu out: edits in percent of the references' words, lower is better."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from llmbatch.core.imports import extra
from llmbatch.evals.base import Example, Floats, MetricKind, MetricSettings, Needs, unbounded
from llmbatch.evals.metrics import sums_of_sacrebleu as by_sacrebleu


class TerSettings(MetricSettings):
    normalized: bool = False
    no_punct: bool = False
    asian_support: bool = False
    case_sensitive: bool = False


@cache
def _metric(settings: TerSettings) -> Any:
    return extra("sacrebleu.metrics", "eval", "the metric ter").TER(**settings.model_dump())


def statistics(example: Example, settings: TerSettings) -> dict[str, float] | None:
    return by_sacrebleu.statistics(_metric(settings), example)


def ter(sums: Mapping[str, Floats], rows: Floats, settings: TerSettings) -> Floats:
    return by_sacrebleu.scores(_metric(settings), sums, rows)


KIND = MetricKind(
    TerSettings,
    statistics,
    Needs(frozenset({"text", "label"})),
    ter,
    higher_is_better=False,
    bounds=unbounded,
    complaint=by_sacrebleu.text_references,
    signature=lambda settings, references: by_sacrebleu.signature(_metric(settings), references),
)
