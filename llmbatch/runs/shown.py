"""A run folder and a row's id in; all that is known of the row out: its record, its input and what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llmbatch.core.errors import FolderError, InputChanged, LlmbatchError
from llmbatch.core.types import Failure, Prompt, Record, Row
from llmbatch.folder.folder import RunFolder, begun_run
from llmbatch.folder.input import kept_input
from llmbatch.folder.ordered import entries
from llmbatch.folder.records import record_on, with_id
from llmbatch.job.job import Job, job_of
from llmbatch.job.swept import recipe_of
from llmbatch.sources.base import START
from llmbatch.sources.opening import open_source


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of one row. Where the input or the prompt can no longer be read, ``problem`` says why."""

    record: Record
    row: Row | None = None
    place: str = ""  # in the input, such as data/a.jsonl:17
    prompt: Prompt | None = None
    problem: str = ""


def find_records(folder: Path, row_id: str) -> list[Record]:
    """The records with an id, in input order: a text, or the number that the text writes.

    Where there is none, of an id such as ``topic-7/3`` those of the row that it is a child of, with that child alone in their
    details. Raises ``FolderError``.
    """
    run = RunFolder(folder)
    if not any(run.parts.scan()):
        begun_run(folder)
        raise FolderError(f"{folder}: no results here yet; llmbatch status {folder} says where its run stands")
    if found := list(map(record_on, with_id(run.record_lines(), row_id))):
        return found
    parent, _, number = row_id.rpartition("/")
    if not parent or not number.isdecimal():
        return []
    return [
        replace(record, details={"child": [{"child": row_id, **children[int(number)]}]})
        for record in map(record_on, with_id(run.record_lines(), parent))
        if int(number) < len(children := (record.details or {}).get("children", ()))
    ]


def shown_of(folder: Path, records: list[Record]) -> Iterator[Shown]:
    """The records with what can be found again of their rows."""
    try:
        job = job_of(folder)
        rows = list(_rows_of(job, folder, [record.index for record in records]))
    except LlmbatchError as error:
        yield from (Shown(record, problem=str(error)) for record in records)
        return
    for record, (row, place) in zip(records, rows, strict=True):
        prompt, problem = _prompt_of(job, row)
        yield Shown(record, row, place, prompt, problem)


def _rows_of(job: Job, folder: Path, indexes: list[int]) -> Iterator[tuple[Row, str]]:
    """The rows of the input at these indexes, each with its place in words, read from the start of its block."""
    source = open_source(kept_input(job.input, folder))
    starts = [bounds.start for bounds in entries(RunFolder(folder))]
    for index in indexes:
        start = max((start for start in starts if start.index <= index), default=START)
        row = next((row for row in source.rows(start) if row.index >= index), None)
        if row is None or row.index != index:
            raise InputChanged(f"the input no longer has a row {index}; it is not what the run read")
        yield row, source.locate(row.cursor)


def _prompt_of(job: Job, row: Row) -> tuple[Prompt | None, str]:
    """The row's prompt, or why there is none."""
    if row.failure is not None:
        return None, row.failure.message
    try:
        rendered = recipe_of(job).render(row)
    except LlmbatchError as error:
        return None, str(error)
    return (None, rendered.message) if isinstance(rendered, Failure) else (rendered.prompt, "")


__all__ = ["Shown", "find_records", "shown_of"]
