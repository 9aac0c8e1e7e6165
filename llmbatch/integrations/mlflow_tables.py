"""The results of a run and what each should have been in; the table that MLflow's evaluations take as it is, out.

table = llmbatch.mlflow.evaluation_table("out", "truth.jsonl")
mlflow.models.evaluate(data=table, predictions="output", targets="expected", model_type="question-answering")
mlflow.genai.evaluate(data=llmbatch.mlflow.genai_data("out", "truth.jsonl"), scorers=[...])
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from llmbatch.api import Run
from llmbatch.core.errors import JobError, SourceError
from llmbatch.core.types import Record, RowId
from llmbatch.core.words import short
from llmbatch.folder.folder import read_results

Truth = str | Path | Mapping[RowId, Any] | Iterable[Mapping[str, Any]]
"""What should have come out, by id: a JSON Lines file, its objects, or a mapping from ids."""

_SHOWN = 3


def evaluation_table(
    run: Run | str | Path, truth: Truth, *, id_field: str = "id", field: str = "output"
) -> pd.DataFrame:
    """A row for each record, in order: ``id``, ``output`` and ``expected`` as text, ``error``, and the input fields kept.

    ``field`` is what an object of the truth has in it, ``id_field`` what names it. A row that failed has an empty output, so
    that it counts as wrong. Raises ``JobError`` where a record has no truth.
    """
    records = list(_records(run))
    expected = _expected(truth, id_field, field)
    if missing := [record.id for record in records if record.id not in expected]:
        shown = ", ".join(map(short, missing[:_SHOWN]))
        raise JobError(
            f"{len(missing):,} of {len(records):,} rows have no truth, such as {shown}: is {id_field} the field with their ids?"
        )
    taken = {"id", "output", "expected", "error"}
    return pd.DataFrame(
        [
            {
                "id": record.id,
                "output": _text(record.output),
                "expected": _text(expected[record.id]),
                "error": None if record.failure is None else f"{record.failure.kind}: {record.failure.message}",
                **{key: value for key, value in (record.input or {}).items() if key not in taken},
            }
            for record in records
        ],
        columns=None if records else sorted(taken),
    )


def genai_data(
    run: Run | str | Path, truth: Truth, *, id_field: str = "id", field: str = "output"
) -> list[dict[str, Any]]:
    """The same for ``mlflow.genai.evaluate``: ``inputs`` (the id and the fields kept), ``outputs``, ``expectations``."""
    expected = _expected(truth, id_field, field)
    return [
        {
            "inputs": {"id": record.id, **(record.input or {})},
            "outputs": record.output,
            "expectations": {"expected_response": expected[record.id]} if record.id in expected else {},
        }
        for record in _records(run)
    ]


def _records(run: Run | str | Path) -> Iterable[Record]:
    return iter(run) if isinstance(run, Run) else read_results(Path(run).expanduser())


def _expected(truth: Truth, id_field: str, field: str) -> dict[RowId, Any]:
    """The truth by id."""
    if isinstance(truth, Mapping):
        return dict(truth)
    found: dict[RowId, Any] = {}
    for where, line in _lines(truth):
        if not isinstance(line, Mapping) or id_field not in line or field not in line:
            raise SourceError(
                f"{where}: is no object with {id_field!r} and {field!r}; name them with id_field= and field="
            )
        if not isinstance(name := line[id_field], str | int):
            raise SourceError(f"{where}: {id_field} is {short(name)}, and an id is a text or a whole number")
        found[name] = line[field]
    return found


def _lines(truth: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(where it is, the object) of each."""
    if not isinstance(truth, str | Path):
        yield from ((f"the truth:{number}", line) for number, line in enumerate(truth, 1))
        return
    path, number = Path(truth).expanduser(), 0
    try:
        with path.open("rb") as lines:  # as bytes, whose lines end nowhere but at a line feed
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read as JSON Lines: {error}") from error
    except ValueError as error:
        raise SourceError(f"{path}:{number}: cannot be read as JSON Lines: {error}") from error


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = ["Truth", "evaluation_table", "genai_data"]
