"""The Python API: ``run`` for a run folder, ``generate`` for records in a script, both over the same machinery as the command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from llmbatch.errors import JobError, RunError
from llmbatch.events import Watcher
from llmbatch.job import Job, job_from
from llmbatch.record import record_from_dict
from llmbatch.report import Report
from llmbatch.session import RunResult, open_session, run_job
from llmbatch.types import Record, Status

if TYPE_CHECKING:
    from datasets import Dataset

Model = TypeVar("Model", bound=BaseModel)
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run that came to an end: iterate it for its records, in input order."""

    folder: Path
    report: Report
    exit_code: int

    def __iter__(self) -> Iterator[Record]:
        """Every record. Raises ``RunError`` where the run was stopped before all were there."""
        path = self.folder / "results.jsonl"
        if not path.exists():
            raise RunError(f"{self.folder}: the run did not finish, so there are no results yet; run it again to go on")
        with path.open("rb") as lines:
            for line in lines:
                yield record_from_dict(json.loads(line))

    def parsed(self, model: type[Model]) -> Iterator[Model | None]:
        """Each row's output as an object of a pydantic model; ``None`` for a row that is not ok."""
        for record in self:
            yield model.model_validate(record.output) if record.status is Status.OK else None

    def to_dataset(self) -> Dataset:
        """The results as a ``datasets.Dataset``, a row a record, with the columns of ``results.parquet``."""
        from datasets import Dataset

        from llmbatch.sinks.parquet import write_parquet

        path = self.folder / "results.parquet"
        if not path.exists():
            write_parquet([self.folder / "results.jsonl"], self.folder)
        dataset: Dataset = Dataset.from_parquet(str(path))
        return dataset


def run(
    *,
    model: str,
    input: str | Mapping[str, Any] | Rows,
    output: str | Path,
    prompt: str | Mapping[str, Any] | None = None,
    schema: type[BaseModel] | Mapping[str, Any] | str | None = None,
    watchers: Sequence[Watcher] = (),
    extend: bool = False,
    **sections: Mapping[str, Any],
) -> Run:
    """Run a job into a folder, or go on with it; the arguments are those of a job file.

    ``input`` is a path, an ``input`` section, or rows: a list of mappings or a ``datasets.Dataset``, which are written into the
    run folder first, so that the run can be resumed. ``schema`` is short for ``answer={"schema": ...}``.
    Raises ``UsageError`` and ``RunError`` as the command does.
    """
    folder = Path(output)
    if not isinstance(input, str | Mapping):
        input = {"path": str(_write_rows(input, folder)), "format": "jsonl"}
    job = _job({"model": model, "prompt": prompt, "input": input, "output": folder}, schema, sections)
    result: RunResult = run_job(job, watchers, extend=extend)
    return Run(result.folder, result.report, result.exit_code)


def generate(
    rows: Rows,
    *,
    model: str,
    prompt: str | Mapping[str, Any],
    schema: type[BaseModel] | Mapping[str, Any] | str | None = None,
    watchers: Sequence[Watcher] = (),
    **sections: Mapping[str, Any],
) -> Iterator[Record]:
    """Records for rows, in their order, as soon as they are there; nothing is left on disk.

    The rows are read while the records are taken. Abandoning the iterator ends the engine.
    """
    with tempfile.TemporaryDirectory(prefix="llmbatch-") as name:
        folder = Path(name)
        path = _write_rows(rows, folder / "rows")
        data = {
            "model": model,
            "prompt": prompt,
            "input": {"path": str(path), "format": "jsonl"},
            "output": folder / "run",
        }
        waiting: dict[int, list[bytes]] = {}
        following = 0
        with open_session(_job(data, schema, sections), watchers) as session:
            for window in session.windows():
                waiting[window.bounds.window] = list(window.sealed_lines())
                while following in waiting:
                    for line in waiting.pop(following):
                        yield record_from_dict(json.loads(line))
                    following += 1


def _job(data: dict[str, Any], schema: Any, sections: Mapping[str, Any]) -> Job:
    data = {key: value for key, value in {**data, **sections}.items() if value is not None}
    if schema is not None:
        data["answer"] = {**data.get("answer", {}), "schema": _schema(schema)}
    return job_from(data)


def _schema(schema: Any) -> Any:
    """A pydantic model by its import path, where it has one: then its own validators judge the answers too."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return schema
    if "<" in schema.__qualname__ or schema.__module__ == "__main__":
        return schema.model_json_schema()
    return f"{schema.__module__}:{schema.__qualname__}"


def _write_rows(rows: Rows, folder: Path) -> Path:
    """The rows as JSON lines in the folder; an existing copy must hold the same rows."""
    from llmbatch.files import atomic_write

    if isinstance(rows, str | bytes | Mapping):
        raise JobError(f"rows are mappings, one a row, not a {type(rows).__name__}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "input.jsonl"
    content = (json.dumps(dict(row), ensure_ascii=False).encode() + b"\n" for row in rows)
    if path.exists():
        with path.open("rb") as known:
            if list(known) == list(content):
                return path
        raise JobError(f"{folder}: holds a run on other rows; give another output")
    atomic_write(path, content)
    return path


__all__ = ["Run", "generate", "run"]
