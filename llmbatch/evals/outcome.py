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


def examples_of(folder: Path, task: Task) -> Iterator[Example]:
    """Every row of a finished run, as it is scored, in the order of the run. Raises ``FolderError``."""
    return map(Outcomes(folder, task).example, read_results(folder))


class Outcomes:
    """What became of the rows of a run, asked for in their order."""

    def __init__(self, folder: Path, task: Task) -> None:
        self._task, self._reader = task, task.reader
        self._text = load_prompt(PromptSettings(path=str(folder / PROMPT))) if task.ask == "perplexity" else None
        self._lines = enumerate(read_lines(folder))

    def example(self, record: Record) -> Example:
        """The row of a record; each comes later in the input than the one before. Raises ``FolderError``."""
        line = next((line for index, line in self._lines if index == record.index), None)
        if not isinstance(line, dict):  # a row that could not be read
            return Example(record.id, {}, error=str(record.failure.kind if record.failure else record.status))
        example = line.pop(EXAMPLE)
        choices: Sequence[str] = example.get("choices", ())
        outputs, error = _outputs(record, several=self._task.repeats > 1)
        scores, answers = None, outputs
        if self._task.ask == "text":
            answers = [self._reader.read(output, choices, line) for output in outputs]
        elif error is None:
            scores = scores_of(record.details)
        if self._text is not None:
            asked = self._text.render(Row(record.index, record.id, line, Cursor(record.index)))
            choices = [] if isinstance(asked, Failure) else [asked.prompt.text or ""]
            answers, outputs = [], []
        return Example(
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


def _outputs(record: Record, *, several: bool) -> tuple[list[Any], str | None]:
    """(the outputs of all repeats, why there are none). What was cut off at its limit is what the model had to say.

    ``several``: the record's output is a list of the repeats'.
    """
    if record.status is Status.OK:
        return (record.output if several else [record.output]), None
    kind = record.failure.kind if record.failure is not None else None
    if several and record.output is not None and any(output is not None for output in record.output):
        return record.output, None  # some repeats failed: theirs cannot be read
    if kind is FailureKind.TRUNCATED and record.raw and not several:
        return [record.raw], None
    return [], str(kind or record.status)


__all__ = ["Outcomes", "examples_of", "read_lines"]
