"""A task's data set in; the lines that its run reads out: each row's fields, and under ``example`` what the task says of it.

    {"question": "1 + 1?", "answer": "2", "id": 0,
     "example": {"references": ["2"], "choices": [...], "category": "sums", "cluster": "page-3",
                 "shots": [{"row": {"question": "2 + 1?", "answer": "3"}, "answer": "3"}]}}

All rows are looked at before a model is loaded, so what is wrong with the task or the data is said then. Memory holds the
examples to be drawn from, and where rows are shuffled the place of each.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.imports import load_object
from llmbatch.core.sandbox import Expression, RenderError
from llmbatch.core.types import Cursor, Row, RowId, Score
from llmbatch.core.words import short, type_name
from llmbatch.evals.base import Example, check_example
from llmbatch.evals.data import open_split
from llmbatch.evals.few_shot import Pool, Shot
from llmbatch.evals.readers.choice import chosen
from llmbatch.evals.scores import Scored, score
from llmbatch.evals.task import Task
from llmbatch.sources.rows import plain

EXAMPLE = "example"
"""The key under which a line has what the task says of the row."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Rows:
    """The rows of a task. Raises ``SourceError`` for a data set or split that is not there, ``JobError`` for a bad task."""

    def __init__(self, task: Task, data: Path | None = None) -> None:
        self._task = task
        self._source = open_split(task.dataset, None, data)
        self._prepare: Callable[[dict[str, Any]], Any] | None = (
            None if task.prepare is None else load_object(task.prepare)
        )
        self._reader = task.reader
        self._metrics = task.metrics_made(allow_code=True)
        self._tried = False
        self._clusters: Counter[str] = Counter()
        self._kinds: dict[str, RowId] = {}  # of references -> the first row with one
        self._pool = Pool(task.few_shot, self._shots(data)) if task.few_shot.number else None

    def lines(self, shuffle_seed: int | None = None) -> Iterator[bytes]:
        """Every row's line, in the order of the data set, or shuffled; then rows of a cluster stay together.

        Raises ``JobError``, naming the row.
        """
        made = map(self._line, self._source.rows())
        if shuffle_seed is None:
            return (line for line, _ in made)
        return shuffled(made, shuffle_seed)

    @property
    def largest_cluster(self) -> int:
        """How many rows of one cluster were seen at most."""
        return max(self._clusters.values(), default=1)

    def _line(self, row: Row) -> tuple[bytes, str | None]:
        """The line of a row, and its cluster."""
        if row.failure is not None:  # a line that is no object is a row that is malformed, and says why
            return _encode(row.failure.message).encode() + b"\n", None
        fields = self._fields(row)
        if EXAMPLE in fields:
            raise JobError(
                f"{self._called(row)}: has a field {EXAMPLE!r}, where llmbatch puts what the task says of a row: name it "
                "otherwise, by a function as prepare"
            )
        if (problem := self._reader.problem(fields)) is not None:
            raise JobError(f"{self._called(row)}: {problem}")
        choices = self._choices(row, fields)
        example: dict[str, Any] = {"references": self._references(row, fields, choices)}
        if choices is not None:
            example["choices"] = choices
        self._see_metrics(row, fields, example)
        for name, expression in (("category", self._task.category), ("cluster", self._task.cluster)):
            if expression is not None:
                example[name] = self._group(row, name, expression, fields)
        if self._pool is not None:
            shots = self._pool.shots(row.index, fields, self._called(row))
            example["shots"] = [shot._asdict() for shot in shots]
        key = self._task.dataset.id_field or "id"
        cluster: str | None = example.get("cluster")
        if cluster is not None:
            self._clusters[cluster] += 1
        try:
            return _encode({**fields, key: row.id, EXAMPLE: example}).encode() + b"\n", cluster
        except (ValueError, UnicodeEncodeError) as error:
            raise JobError(f"{self._called(row)}: cannot be written as JSON: {error}") from error

    def _fields(self, row: Row) -> dict[str, Any]:
        fields = dict(row.data)
        if self._prepare is not None:
            try:
                fields = plain(self._prepare(fields))
            except Exception as error:
                raise JobError(
                    f"{self._called(row)}: {self._task.prepare} raised {type(error).__name__}: {error}"
                ) from error
            if not isinstance(fields, dict):
                raise JobError(
                    f"{self._called(row)}: {self._task.prepare} gave {short(fields)}, and a row is a mapping"
                )
        for name, expression in self._task.fields.items():
            fields[name] = self._value(row, f"fields.{name}", expression, fields)
        return fields

    def _choices(self, row: Row, fields: Mapping[str, Any]) -> list[str] | None:
        given = self._task.choices
        if given is None:
            return None
        if not isinstance(given, Expression):
            return list(given)
        found = self._value(row, "choices", given, fields)
        if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
            raise JobError(
                f"{self._called(row)}: choices ({given.source}) gives {short(found)}, and must give a list of texts"
            )
        return found

    def _references(self, row: Row, fields: Mapping[str, Any], choices: Sequence[str] | None) -> list[Any]:
        given = self._task.references
        if given is None:
            return []
        found = self._value(row, "references", given, fields)
        several = found if isinstance(found, list) and self._task.gives != "json" else [found]
        if not several or any(each is None or each == "" for each in several):
            raise JobError(
                f"{self._called(row)}: references ({given.source}) gives {short(found)}, so it cannot be told what would be right; "
                "some splits come without answers: take another, or another field"
            )
        read: list[Any] = []
        for each in several:
            try:
                reference = (
                    chosen(each, choices or ())
                    if self._task.gives == "likelihood"
                    else self._reader.reference(each, choices or ())
                )
            except ValueError as error:
                raise JobError(f"{self._called(row)}: references ({given.source}): {error}") from None
            self._see_kind(row, reference if self._task.gives == "json" else each)
            read.append(reference)
        return read

    def _see_kind(self, row: Row, reference: Any) -> None:
        """All references of a task are of one kind, or some are not what their author thinks."""
        kind = (
            "number" if isinstance(reference, int | float) and not isinstance(reference, bool) else type_name(reference)
        )
        self._kinds.setdefault(kind, row.id)
        if len(self._kinds) > 1:
            seen = " and ".join(f"{kind} (row {short(at)})" for kind, at in self._kinds.items())
            raise JobError(
                f"{self._task.name}: references are of several kinds, {seen}: let the expression make one of them"
            )

    def _see_metrics(self, row: Row, fields: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        """See that the metrics can use what the row is scored by, as if it were answered."""
        choices = said.get("choices", ())
        scores = [Score(-1.0, False, 1) for _ in choices] if self._task.ask == "likelihood" else None
        example = Example(row.id, fields, said["references"], choices=choices, scores=scores)
        if self._task.ask == "perplexity":
            return
        check_example(self._metrics, example)
        if not self._tried:  # a library that a metric needs is missed now, and not when all rows are answered
            self._tried = True
            answers = list(example.references[:1]) * self._task.repeats
            answered = example._replace(answers=answers, outputs=answers)
            harmless = [metric for metric in self._metrics if not metric.kind.runs_code]
            score([answered, answered], harmless, Scored(self._task.name, "", "", ""))

    def _group(self, row: Row, name: str, expression: Expression, fields: Mapping[str, Any]) -> str | None:
        value = self._value(row, name, expression, fields)
        if isinstance(value, list | dict):
            raise JobError(
                f"{self._called(row)}: {name} ({expression.source}) gives {short(value)}, and must give a text"
            )
        return None if value is None else str(value)

    def _value(self, row: Row, name: str, expression: Expression, fields: Mapping[str, Any]) -> Any:
        try:
            return expression.value(fields)
        except RenderError as error:
            known = ", ".join(list(fields)[:12])
            raise JobError(
                f"{self._called(row)}: {name} ({expression.source}) cannot be told: {error}; the row's fields are {known}"
            ) from error

    def _called(self, row: Row) -> str:
        return f"{self._task.name}: row {short(row.id)} ({self._source.locate(row.cursor)})"

    def _shots(self, data: Path | None) -> Iterator[Shot]:
        """The examples that there are to be drawn from."""
        settings = self._task.few_shot
        for row in _example_rows(self._task, data):
            if row.failure is not None:
                continue
            fields = self._fields(row)
            if settings.answer is not None:
                answer = self._value(row, "few_shot.answer", settings.answer, fields)
            else:
                answer = next(iter(self._references(row, fields, self._choices(row, fields))), None)
            if answer is None or isinstance(answer, list | dict):
                raise JobError(
                    f"{self._called(row)}: as an example its answer is {short(answer)}, and must be a text: say in few_shot.answer "
                    "which it is"
                )
            yield Shot(fields, str(answer))


def _example_rows(task: Task, data: Path | None) -> Iterable[Row]:
    settings = task.few_shot
    if settings.rows is not None:
        return [Row(at, at, row, Cursor(at)) for at, row in enumerate(settings.rows)]
    if settings.dataset is not None:
        return open_split(settings.dataset).rows()
    same = settings.split == task.dataset.split
    return open_split(task.dataset, None if same else settings.split, data).rows()


def shuffled(lines: Iterable[tuple[bytes, str | None]], seed: int) -> Iterator[bytes]:
    """The lines, each with its cluster, in another order, which depends on the seed alone; they are on disk meanwhile."""
    with tempfile.TemporaryFile() as file:
        starts = array("Q", [0])
        units: list[list[int]] = []  # rows of one cluster, or a row without one
        of_cluster: dict[str, list[int]] = {}
        for at, (line, cluster) in enumerate(lines):
            file.write(line)
            starts.append(starts[-1] + len(line))
            unit = None if cluster is None else of_cluster.get(cluster)
            if unit is None:
                units.append(unit := [])
                if cluster is not None:
                    of_cluster[cluster] = unit
            unit.append(at)
        random.Random(f"shuffle {seed}").shuffle(units)  # noqa: S311 - an order that can be had again, not a secret
        for at in chain.from_iterable(units):
            file.seek(starts[at])
            yield file.read(starts[at + 1] - starts[at])


def fingerprint(lines: Iterable[Mapping[str, Any]]) -> str:
    """What tells one set of rows from another, in whatever order they are; the examples that are shown do not count."""
    total = 0
    for line in lines:
        example = {key: value for key, value in line.get(EXAMPLE, {}).items() if key != "shots"}
        text = json.dumps({**line, EXAMPLE: example}, sort_keys=True, ensure_ascii=False)
        total += int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16], "big")
    return f"{total % (1 << 128):032x}"


__all__ = ["EXAMPLE", "Rows", "fingerprint", "shuffled"]
