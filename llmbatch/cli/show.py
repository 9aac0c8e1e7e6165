"""``llmbatch show``: a run folder and a row's id in; its input, its rendered prompt, every attempt and its result out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import row_ids, run_folders
from llmbatch.cli.pager import paged, pager_option
from llmbatch.core.errors import FolderError, LlmbatchError, UsageError

if TYPE_CHECKING:
    from llmbatch.cli.show_view import Shown
    from llmbatch.core.types import Prompt, Record, Row
    from llmbatch.job.job import Job


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.argument("row_id", metavar="ID", shell_complete=row_ids)
@click.option("--json", "as_json", is_flag=True, help="As JSON, one line for each row with this id.")
@pager_option
def show(folder: Path, row_id: str, as_json: bool, pager: bool) -> None:
    """The row of DIR whose id is ID: its input, its prompt, every attempt with its answer and why it was sent back.

    All rows are shown where several have the same id. Of a program that makes children of rows, a child's id shows its row
    with that child. On a terminal what is longer than the screen is paged ($PAGER).

    \b
    Example: llmbatch show out orders-0001
    """
    records = list(find_records(folder, row_id)) or list(_parent(folder, row_id))
    if not records:
        raise UsageError(
            f"{folder}: no record has the id {row_id!r}. Its row may not be done yet (see llmbatch status), or has another id: "
            "ids come from --id-field, else the field `id`, else they are indexes from 0"
        )
    explained = _explained(folder, records)
    if as_json:
        for shown in explained:
            click.echo(json.dumps(_as_dict(shown), ensure_ascii=False))
        return
    from llmbatch.cli.show_view import print_shown

    with paged(pager) as console:
        for shown in explained:
            print_shown(console, shown)


def find_records(folder: Path, row_id: str) -> Iterator[Record]:
    """The records with an id, in input order: a text, or the number that the text writes."""
    from llmbatch.folder.folder import RunFolder, begun_run
    from llmbatch.folder.records import record_on

    run = RunFolder(folder)
    if not any(run.parts.scan()):
        begun_run(folder)
        raise FolderError(f"{folder}: no results here yet; llmbatch status {folder} says where its run stands")
    starts = tuple(f'{{"id":{text},'.encode() for text in _json_forms(row_id))
    for line in run.record_lines():
        if line.startswith(starts):
            yield record_on(line)


def _parent(folder: Path, child_id: str) -> Iterator[Record]:
    """The records of the row that an id such as ``topic-7/3`` is a child of, with that child alone in their details."""
    row_id, _, number = child_id.rpartition("/")
    if not row_id or not number.isdecimal():
        return
    for record in find_records(folder, row_id):
        children = (record.details or {}).get("children", ())
        if int(number) < len(children):
            yield replace(record, details={"child": [{"child": child_id, **children[int(number)]}]})


def _json_forms(row_id: str) -> list[str]:
    """How a line of results may write the id."""
    forms = [json.dumps(row_id, ensure_ascii=False)]
    if row_id.removeprefix("-").isdecimal() and str(int(row_id)) == row_id:
        forms.append(row_id)
    return forms


def _explained(folder: Path, records: list[Record]) -> Iterator[Shown]:
    """The records with what can be found again of their rows."""
    from llmbatch.cli.show_view import Shown
    from llmbatch.job.job import job_of

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
    from llmbatch.core.errors import InputChanged
    from llmbatch.folder.folder import RunFolder
    from llmbatch.folder.input import kept_input
    from llmbatch.sources.base import START
    from llmbatch.sources.opening import open_source

    source = open_source(kept_input(job.input, folder))
    starts = [bounds.start for bounds in RunFolder(folder).bounds()]
    for index in indexes:
        start = max((start for start in starts if start.index <= index), default=START)
        row = next((row for row in source.rows(start) if row.index >= index), None)
        if row is None or row.index != index:
            raise InputChanged(f"the input no longer has a row {index}; it is not what the run read")
        yield row, source.locate(row.cursor)


def _prompt_of(job: Job, row: Row) -> tuple[Prompt | None, str]:
    """The row's prompt, or why there is none."""
    from llmbatch.core.types import Failure
    from llmbatch.job.swept import recipe_of

    if row.failure is not None:
        return None, row.failure.message
    try:
        rendered = recipe_of(job).render(row)
    except LlmbatchError as error:
        return None, str(error)
    return (None, rendered.message) if isinstance(rendered, Failure) else (rendered.prompt, "")


def _as_dict(shown: Shown) -> dict[str, Any]:
    from llmbatch.core.record import record_to_dict

    prompt = shown.prompt
    return {
        "record": record_to_dict(shown.record),
        "place": shown.place or None,
        "row": dict(shown.row.data) if shown.row else None,
        "messages": list(prompt.messages) if prompt and prompt.messages else None,
        "text": prompt.text if prompt else None,
        "prefill": prompt.prefill or None if prompt else None,
        "problem": shown.problem or None,
    }
