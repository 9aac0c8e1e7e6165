"""A run folder of a task in; its rows with what the model answered, as they are scored, out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.types import Cursor, Failure, FailureKind, Record, Row, Status
from llmbatch.evals.base import Example
from llmbatch.evals.job import PROMPT
from llmbatch.evals.rows import EXAMPLE
from llmbatch.evals.task import Task
from llmbatch.folder.folder import read_results
from llmbatch.folder.input_copy import KEPT
from llmbatch.programs.score import scores_of
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.template import load_prompt

_CUT = FailureKind.TRUNCATED


def examples_of(folder: Path, task: Task, rows: int | None = None) -> Iterator[Example]:
    """Every scored row, in the order of the run; ``rows`` are so many, the first ones. Raises ``FolderError``."""
    reader, lines = task.reader, read_lines(folder)
    text = load_prompt(PromptSettings(path=str(folder / PROMPT))) if task.ask == "perplexity" else None
    at = -1
    for number, record in enumerate(read_results(folder)):
        if rows is not None and number >= rows:
            return
        line: Any = None
        while at < record.index:
            line, at = next(lines, None), at + 1
        if not isinstance(line, dict):  # a row that could not be read
            yield Example(record.id, {}, error=str(record.failure.kind if record.failure else record.status))
            continue
        example = line.pop(EXAMPLE)
        choices: Sequence[str] = example.get("choices", ())
        outputs, error = _outputs(record)
        scores = None
        answers: Sequence[Any] = ()
        if task.ask == "text":
            answers = [reader.read(output, choices) for output in outputs]
        elif error is None:
            scores = scores_of(record.details)
            answers = outputs if task.ask == "likelihood" else ()
            if text is not None and not isinstance(asked := text.render(Row(at, record.id, line, Cursor(at))), Failure):
                choices, outputs = [asked.prompt.text or ""], []
        yield Example(
            record.id, line, example.get("references", ()), answers, outputs, choices, scores,
            example.get("cluster"), example.get("category"), error,
        )  # fmt: skip


def read_lines(folder: Path) -> Iterator[Any]:
    """What the run read, a value a row. Raises ``FolderError``."""
    path = folder / KEPT
    try:
        with path.open("rb") as lines:
            yield from map(json.loads, lines)
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; the same llmbatch eval again writes it anew") from error


def _outputs(record: Record) -> tuple[list[Any], str | None]:
    """(the outputs of all repeats, why there are none). What was cut off at its limit is what the model had to say."""
    if record.status is Status.OK:
        several = isinstance(record.output, list) and not isinstance(record.output, str)
        return (record.output if several else [record.output]), None
    kind = record.failure.kind if record.failure is not None else None
    if isinstance(record.output, list) and any(output is not None for output in record.output):
        return record.output, None  # some repeats failed: theirs cannot be read
    if kind is _CUT and record.raw:
        return [record.raw], None
    return [], str(kind or record.status)


__all__ = ["examples_of", "read_lines"]
