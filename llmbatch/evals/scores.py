"""Examples and a task's metrics in; the figures with their intervals, overall and by category, out, and as ``scores.json``."""

from __future__ import annotations

import contextlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic, atomic_write
from llmbatch.evals.base import Example, Metric, check_example, check_examples, make_metric
from llmbatch.evals.examples import EXAMPLES, scored_line
from llmbatch.evals.intervals import Codes
from llmbatch.evals.statistics import Statistics, StatisticsBuilder, figure_of, interval_of

SCORES = "scores.json"
_FORMAT = 1
_LOOKED_AT = 100  # examples that the metrics are held against before any is scored
_DIGITS = 10  # that are written: sums of floats differ in their last digits from processor to processor


class Scored(NamedTuple):
    """What was scored, so that two runs can be seen to be comparable."""

    task: str
    task_digest: str
    """Of what decides the questions and how answers are read: runs with different ones are not compared."""
    dataset: str
    """A fingerprint of the data set."""
    model: str


class Figure(NamedTuple):
    """A metric's figure over some rows; ``low`` and ``high`` are None where there are too few rows for an interval."""

    value: float | None
    low: float | None
    high: float | None
    method: str | None
    """How the interval was made."""
    rows: int
    left_out: int
    """Rows that the metric has nothing to say of."""


class Counts(NamedTuple):
    """How many rows there are, how many failed, in how many others an answer could not be read, how many clusters there are."""

    rows: int
    failed: int
    unreadable: int
    clusters: int | None


class Part(NamedTuple):
    """The figures of all rows or of a category, by the metric's name."""

    counts: Counts
    figures: Mapping[str, Figure]


class Scores(NamedTuple):
    """All figures of a run. ``signatures`` say which variant of a metric it is, as the field writes that down."""

    scored: Scored
    metrics: Sequence[Metric]
    signatures: Mapping[str, str]
    overall: Part
    categories: Mapping[str, Part]
    confidence: float
    seed: int


def score(
    examples: Iterable[Example],
    metrics: Sequence[Metric],
    scored: Scored,
    folder: Path | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score the examples, one at a time, and write ``examples.jsonl`` and ``scores.json`` into ``folder``, where one is given.

    Raises ``JobError`` for an example that a metric cannot score; then nothing is written. Raises ``WriteError``.
    """
    stream = iter(examples)
    first = list(itertools.islice(stream, _LOOKED_AT))
    check_examples(metrics, first)
    gathered = _Gathered(metrics)
    with contextlib.ExitStack() as stack:
        file: BinaryIO | None = stack.enter_context(atomic(folder / EXAMPLES)) if folder is not None else None
        for example, values in gathered.take(itertools.chain(first, stream)):
            if file is not None:
                file.write(scored_line(example, values))
    scores = gathered.scores(scored, confidence, seed)
    if folder is not None:
        text = json.dumps(scores_to_dict(scores), ensure_ascii=False, indent=1, allow_nan=False)
        atomic_write(folder / SCORES, text.encode() + b"\n")
    return scores


class _Gathered:
    """What is kept of every example until the last one is there: numbers, and no text."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._builders = [StatisticsBuilder() for _ in metrics]
        self._failed, self._unreadable = array("b"), array("b")
        self._categories, self._clusters = array("q"), array("q")
        self._category_codes: dict[str | None, int] = {}
        self._cluster_codes: dict[str | int, int] = {}
        self._references: set[int] = set()

    def take(self, examples: Iterable[Example]) -> Iterator[tuple[Example, dict[str, Any]]]:
        """Each example with its values."""
        for example in examples:
            check_example(self._metrics, example)
            values = {metric.name: metric.of(example) for metric in self._metrics}
            for metric, builder in zip(self._metrics, self._builders, strict=True):
                builder.add(values[metric.name])
            # a row without a cluster is one by itself
            cluster = len(self._failed) if example.cluster is None else example.cluster
            self._clusters.append(self._cluster_codes.setdefault(cluster, len(self._cluster_codes)))
            self._categories.append(self._category_codes.setdefault(example.category, len(self._category_codes)))
            self._failed.append(example.error is not None)
            self._unreadable.append(example.error is None and any(answer is None for answer in example.answers))
            if example.references:  # a row that could not be read has none
                self._references.add(len(example.references))
            yield example, values

    def scores(self, scored: Scored, confidence: float, seed: int) -> Scores:
        statistics = [builder.finish() for builder in self._builders]
        clusters = np.array(self._clusters, np.int64) if len(self._cluster_codes) < len(self._failed) else None
        categories = np.array(self._categories, np.int64)
        several = len(self._category_codes) > 1
        references = next(iter(self._references)) if len(self._references) == 1 else None

        def part(wanted: NDArray[np.bool_]) -> Part:
            figures = {
                metric.name: _figure(metric, each.of(wanted), clusters, int(wanted.sum()), confidence, seed)
                for metric, each in zip(self._metrics, statistics, strict=True)
            }
            return Part(self._counts(wanted, clusters), figures)

        return Scores(
            scored,
            self._metrics,
            {m.name: m.kind.signature(m.settings, references) for m in self._metrics if m.kind.signature is not None},
            part(np.ones(len(self._failed), bool)),
            {
                name: part(categories == code)
                for name, code in sorted(self._category_codes.items(), key=lambda item: str(item[0]))
                if several and name is not None
            },
            confidence,
            seed,
        )

    def _counts(self, wanted: NDArray[np.bool_], clusters: Codes | None) -> Counts:
        failed, unreadable = np.array(self._failed, bool), np.array(self._unreadable, bool)
        return Counts(
            int(wanted.sum()),
            int(failed[wanted].sum()),
            int(unreadable[wanted].sum()),
            None if clusters is None else len(np.unique(clusters[wanted])),
        )


def _figure(
    metric: Metric, statistics: Statistics, clusters: Codes | None, rows: int, confidence: float, seed: int
) -> Figure:
    value = figure_of(metric, statistics)
    found = None if value is None else interval_of(metric, statistics, clusters, confidence, seed)
    low, high, method = (None, None, None) if found is None else (found.low, found.high, found.method)
    scored = len(statistics.rows)
    return Figure(_rounded(value), _rounded(low), _rounded(high), method, scored, rows - scored)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """The JSON form of the scores, in the order in which its keys are written."""
    return {
        "format": _FORMAT,
        **scores.scored._asdict(),
        "confidence": scores.confidence,
        "seed": scores.seed,
        "metrics": {
            metric.name: {
                "kind": metric.kind_name,
                "version": metric.kind.version,
                "settings": metric.settings.model_dump(mode="json"),
                "higher_is_better": metric.kind.higher_is_better,
                **({"signature": scores.signatures[metric.name]} if metric.name in scores.signatures else {}),
            }
            for metric in scores.metrics
        },
        "overall": _part_to_dict(scores.overall),
        "categories": {name: _part_to_dict(part) for name, part in scores.categories.items()},
    }


def _part_to_dict(part: Part) -> dict[str, Any]:
    return {**part.counts._asdict(), "figures": {name: figure._asdict() for name, figure in part.figures.items()}}


def _part_from_dict(given: Mapping[str, Any]) -> Part:
    return Part(
        Counts(**{name: given[name] for name in Counts._fields}),
        {name: Figure(**figure) for name, figure in given["figures"].items()},
    )


def read_scores(folder: Path) -> Scores:
    """The scores of a run folder. Raises ``FolderError``; ``JobError`` for a metric that is not known here."""
    path = folder / SCORES
    again = "run llmbatch eval with the same arguments again, which scores anew what was answered"
    try:
        given = json.loads(path.read_bytes())
        if given["format"] > _FORMAT:
            raise FolderError(f"{path}: it was written by a newer llmbatch; use that one")
        metrics = given["metrics"]
        made = [make_metric({"kind": m["kind"], "name": name, **m["settings"]}) for name, m in metrics.items()]
        for metric in made:
            if (version := metrics[metric.name]["version"]) != metric.kind.version:
                raise FolderError(
                    f"{path}: metric {metric.name} is of version {version}, and this llmbatch has {metric.kind.version}, which "
                    f"gives other figures; {again}"
                )
        return Scores(
            Scored(**{name: given[name] for name in Scored._fields}),
            made,
            {name: m["signature"] for name, m in metrics.items() if "signature" in m},
            _part_from_dict(given["overall"]),
            {name: _part_from_dict(part) for name, part in given["categories"].items()},
            given["confidence"],
            given["seed"],
        )
    except FileNotFoundError:
        raise FolderError(
            f"{folder}: there is no {SCORES} in it, so it is no finished run of llmbatch eval; finish it, or name another folder"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{path}: it is damaged ({type(error).__name__}: {error}); {again}") from error
