"""Run folders of one task in; for each pair of them and each metric how far they are apart, and whether that is luck, out."""

from __future__ import annotations

import heapq
import itertools
import json
import string
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbatch.core.errors import FolderError, JobError, UsageError
from llmbatch.core.words import count, short
from llmbatch.evals.base import Metric
from llmbatch.evals.examples import read_examples
from llmbatch.evals.intervals import Codes
from llmbatch.evals.paired import Difference, difference, holm, pair, row_gains
from llmbatch.evals.scores import Scores, read_scores
from llmbatch.evals.statistics import Statistics, StatisticsBuilder

_ENOUGH_IN_COMMON = 0.5
"""The part of the smaller run's rows that the other must have, too."""


class Compared(NamedTuple):
    """One metric of two runs."""

    metric: Metric
    first: str
    second: str
    difference: Difference
    p_adjusted: float | None
    """The p-value among those of all pairs of runs, by Holm's method; of two runs it is the p-value."""
    decided: bool | None
    """Whether the runs differ by more than luck at the asked confidence; None where there is no p-value."""

    @property
    def second_is_better(self) -> bool:
        return (self.difference.value > 0) == self.metric.kind.higher_is_better


class SideBySide(NamedTuple):
    """A row at which two runs differ much. ``answers`` has those of each run, and what could not be read as it came."""

    id: Any
    gain: float
    references: Sequence[Any]
    answers: Mapping[str, Sequence[Any]]


class Comparison(NamedTuple):
    """All of it. ``notes`` say what was left out of it. ``examples`` are of the first two runs, by ``examples_by``."""

    task: str
    runs: Mapping[str, Path]
    models: Mapping[str, str]
    rows: int
    confidence: float
    compared: Sequence[Compared]
    examples: Sequence[SideBySide]
    examples_by: str | None
    notes: Sequence[str]


def compare(
    folders: Sequence[Path],
    *,
    metrics: Sequence[str] = (),
    examples: int = 3,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare finished evaluations of one task, pair by pair, the later ones with the earlier ones.

    ``metrics`` are those to compare, by default every one that the runs have in common; ``examples`` rows are shown that each of
    the first two runs does better. Raises ``FolderError`` for a folder that holds no evaluation, and ``JobError`` for runs that
    cannot be paired.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UsageError("name two run folders or more, each of them once")
    names = _names(folders)
    scores = [read_scores(folder) for folder in folders]
    for name, other in zip(names[1:], scores[1:], strict=True):
        _see_same_task(names[0], scores[0], name, other)
    common, notes = _common_metrics(names, scores, metrics)
    runs = [_Run(name, folder, common) for name, folder in zip(names, folders, strict=True)]
    compared: list[Compared] = []
    shown: list[SideBySide] = []
    by = next((metric for metric in common if metric.kind.by_row), None)
    for metric in common:
        found = []
        for one, two in itertools.combinations(runs, 2):
            shared = _Shared(one, two)
            notes += shared.notes
            made, kept = pair(one.statistics[metric.name], two.statistics[metric.name], shared.places, shared.clusters)
            gap = difference(metric, made, confidence, seed)
            if gap is None:
                notes.append(f"{metric.name}: of {one.name} and {two.name} it is no number, so it is not compared")
                continue
            found.append(Compared(metric, one.name, two.name, gap, None, None))
            if metric is by and (one, two) == (runs[0], runs[1]):
                shown = _side_by_side(runs, row_gains(metric, made), shared.places[0][kept], examples)
        compared += _adjusted(found, confidence)
    return Comparison(
        scores[0].scored.task,
        dict(zip(names, folders, strict=True)),
        {name: each.scored.model for name, each in zip(names, scores, strict=True)},
        max((each.difference.rows for each in compared), default=0),
        confidence,
        compared,
        shown,
        by.name if by is not None else None,
        list(dict.fromkeys(notes)),
    )


class _Run:
    """What a run's rows add to the metrics, and which rows they are."""

    def __init__(self, name: str, folder: Path, metrics: Sequence[Metric]) -> None:
        self.name = name
        self.folder = folder
        self.index: dict[str, int] = {}
        builders = {metric.name: StatisticsBuilder() for metric in metrics}
        codes: dict[str | int, int] = {}
        clusters = array("q")
        for row, example in enumerate(read_examples(folder)):
            if (key := _key(example.id)) in self.index:
                raise JobError(
                    f"{folder}: two rows have the id {short(example.id)}, so rows cannot be paired by it; name a field that tells "
                    "them apart as the task's id"
                )
            self.index[key] = row
            for metric, builder in builders.items():
                if metric not in example.values:
                    raise FolderError(
                        f"{folder}: row {short(example.id)} has no value of {metric}; score the run again"
                    )
                builder.add(example.values[metric])
            clusters.append(codes.setdefault(row if example.cluster is None else example.cluster, len(codes)))
        self.statistics: dict[str, Statistics] = {metric: builder.finish() for metric, builder in builders.items()}
        self.clusters: Codes | None = np.array(clusters, np.int64) if len(codes) < len(clusters) else None


class _Shared:
    """The rows that two runs have in common, by their places in either, in the order of the first. Raises ``JobError``."""

    def __init__(self, one: _Run, two: _Run) -> None:
        both = [(place, two.index[key]) for key, place in one.index.items() if key in two.index]
        fewer = min(len(one.index), len(two.index))
        if len(both) < max(2, _ENOUGH_IN_COMMON * fewer):
            raise JobError(
                f"{one.name} and {two.name} cannot be paired: they have {count(len(both))} row ids in common, of "
                f"{count(len(one.index))} and {count(len(two.index))}; were other rows drawn (--limit, --shuffle-seed)? "
                "Run both on the same rows"
            )
        places = np.array(both, np.int64)
        self.places: tuple[NDArray[np.int64], NDArray[np.int64]] = (places[:, 0], places[:, 1])
        self.clusters = None if one.clusters is None else one.clusters[places[:, 0]]
        self.notes = [
            f"{count(only)} rows of {run.name} are not in {other.name}, and do not count"
            for run, other in ((one, two), (two, one))
            if (only := len(run.index) - len(both))
        ]


def _see_same_task(name: str, scores: Scores, other_name: str, other: Scores) -> None:
    """Raises ``JobError`` for runs that were not asked the same."""
    one, two = scores.scored, other.scored
    if one.task != two.task:
        raise JobError(
            f"{name} is of the task {one.task}, {other_name} of {two.task}: only runs of one task are compared"
        )
    if one.task_digest != two.task_digest:
        raise JobError(
            f"{name} and {other_name} are of the task {one.task} in two states: its split, fields, choices or references, or how "
            "answers are asked for and read, changed in between; run one of them again"
        )
    if one.dataset != two.dataset:
        raise JobError(
            f"{name} and {other_name} were asked of two states of the data set ({short(one.dataset)}, {short(two.dataset)}); run "
            "one of them again"
        )


def _common_metrics(
    names: Sequence[str], scores: Sequence[Scores], asked: Sequence[str]
) -> tuple[list[Metric], list[str]]:
    """The metrics that all runs have, with the same settings, and notes of the others. Raises ``JobError`` if there are none."""
    variants = [{metric.name: _variant(metric, each) for metric in each.metrics} for each in scores]
    known = list(dict.fromkeys(itertools.chain.from_iterable(variants)))
    if unknown := [name for name in asked if name not in known]:
        raise JobError(f"no run has the metric {unknown[0]!r}; they have {', '.join(known)}")
    common, notes = [], []
    for metric in asked or known:
        without = [name for name, each in zip(names, variants, strict=True) if metric not in each]
        if without:
            notes.append(f"{metric}: {', '.join(without)} does not have it, so it is not compared")
        elif len({each[metric] for each in variants}) > 1:
            notes.append(f"{metric}: it was made with different settings or library versions, so it is not compared")
        else:
            common.append(next(each for each in scores[0].metrics if each.name == metric))
    if not common:
        raise JobError(f"the runs have no metric in common that could be compared: {'; '.join(notes)}")
    return common, notes


def _variant(metric: Metric, scores: Scores) -> str:
    settings = metric.settings.model_dump(mode="json")
    return json.dumps([metric.kind_name, settings, scores.signatures.get(metric.name)], sort_keys=True)


def _adjusted(found: Sequence[Compared], confidence: float) -> list[Compared]:
    adjusted = holm([each.difference.p for each in found])
    return [
        each._replace(p_adjusted=p, decided=None if p is None else p <= 1 - confidence)
        for each, p in zip(found, adjusted, strict=True)
    ]


def _side_by_side(
    runs: Sequence[_Run], gains: NDArray[np.float64], places: NDArray[np.int64], number: int
) -> list[SideBySide]:
    """The rows at which the second run is ahead the most, then those at which the first one is."""
    rows = range(len(gains))
    best = [row for row in heapq.nlargest(number, rows, key=lambda row: gains[row]) if gains[row] > 1e-12]
    worst = [row for row in heapq.nsmallest(number, rows, key=lambda row: gains[row]) if gains[row] < -1e-12]
    at = {int(places[row]): float(gains[row]) for row in (*best, *worst)}
    keys = {place: key for key, place in runs[0].index.items() if place in at}
    answers: dict[str, dict[str, list[Any]]] = {key: {} for key in keys.values()}
    about: dict[str, tuple[Any, Sequence[Any]]] = {}
    for run in runs:
        for example in read_examples(run.folder):
            if (key := _key(example.id)) in answers:
                unread = iter(example.unread)
                said = [next(unread, None) if answer is None else answer for answer in example.answers]
                answers[key][run.name] = said or [example.error]
                about.setdefault(key, (example.id, example.references))
    return [
        SideBySide(about[keys[place]][0], gain, about[keys[place]][1], answers[keys[place]])
        for place, gain in at.items()
    ]


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: by their folders' names, or by their paths where two are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _key(row_id: Any) -> str:
    return json.dumps(row_id, sort_keys=True)


def letters_of(comparison: Comparison) -> dict[str, str]:
    """What the runs are called for short, by name: A to Z, then A1 to Z1, and so on."""
    letters = (f"{letter}{number or ''}" for number in itertools.count() for letter in string.ascii_uppercase)
    return dict(zip(comparison.runs, letters, strict=False))


def verdict(compared: Compared, letters: Mapping[str, str]) -> str:
    """A sentence: whether the rows can tell the two apart, and what it would take."""
    gap = compared.difference
    one, two = letters[compared.first], letters[compared.second]
    of = f"{compared.metric.name}, {one} and {two}" if len(letters) > 2 else compared.metric.name
    test = f" ({gap.test})" if gap.test else ""
    if compared.decided is None:
        return f"{of}: too few rows to tell the runs apart."
    if compared.decided:
        lower = "" if compared.metric.kind.higher_is_better else ", lower being better"
        return f"{of}: {two if compared.second_is_better else one} is better{lower}{test}."
    if gap.detectable is None:
        return f"{of}: these {count(gap.rows)} rows show no difference{test}."
    needed = f"; to show one such as was seen takes about {count(gap.rows_needed)} rows" if gap.rows_needed else ""
    return (
        f"{of}: these {count(gap.rows)} rows cannot tell the runs apart{test}. They show a difference of {gap.detectable:.2g} in "
        f"80 of 100 times{needed}."
    )


def said_of(values: Sequence[Any]) -> str:
    """Answers or references on one line."""
    return " | ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """The JSON form of a comparison."""
    return {
        "task": comparison.task,
        "runs": {
            name: {"folder": str(folder), "model": comparison.models[name]} for name, folder in comparison.runs.items()
        },
        "rows": comparison.rows,
        "confidence": comparison.confidence,
        "compared": [_compared_to_dict(each) for each in comparison.compared],
        "examples_by": comparison.examples_by,
        "examples": [each._asdict() for each in comparison.examples],
        "notes": list(comparison.notes),
    }


def _compared_to_dict(compared: Compared) -> dict[str, Any]:
    gap = compared.difference
    return {
        "metric": compared.metric.name,
        "higher_is_better": compared.metric.kind.higher_is_better,
        "first": {"run": compared.first, "value": gap.first},
        "second": {"run": compared.second, "value": gap.second},
        "difference": gap.value,
        "low": gap.interval.low if gap.interval else None,
        "high": gap.interval.high if gap.interval else None,
        "interval": gap.interval.method if gap.interval else None,
        "p": gap.p,
        "p_adjusted": compared.p_adjusted,
        "test": gap.test,
        "decided": compared.decided,
        "rows": gap.rows,
        "won": gap.won,
        "lost": gap.lost,
        "tied": gap.tied,
        "detectable": gap.detectable,
        "rows_needed": gap.rows_needed,
    }
