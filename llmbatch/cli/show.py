"""``llmbatch show``: a run folder and a row's id in; its input, its rendered prompt, every attempt and its result out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.core.errors import FolderError, LlmbatchError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from llmbatch.core.types import Failure, Prompt, Record, Row
    from llmbatch.job.job import Job


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of one row. Where the input or the prompt can no longer be read, ``problem`` says why."""

    record: Record
    row: Row | None = None
    place: str = ""  # in the input, such as data/a.jsonl:17
    prompt: Prompt | None = None
    problem: str = ""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("row_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one line for each row with this id.")
def show(folder: Path, row_id: str, as_json: bool) -> None:
    """The row of DIR whose id is ID: its input, its prompt, every attempt with its answer and why it was sent back.

    All rows are shown where several have the same id. Of a program that makes children of rows, a child's id shows its row
    with that child.
    """
    records = list(find_records(folder, row_id)) or list(_parent(folder, row_id))
    if not records:
        raise UsageError(
            f"{folder}: no record has the id {row_id!r}. Its row may not be done yet (see llmbatch status), or has another id: "
            "ids come from --id-field, else the field `id`, else they are indexes from 0"
        )
    for shown in _explained(folder, records):
        if as_json:
            click.echo(json.dumps(_as_dict(shown), ensure_ascii=False))
        else:
            _print(shown)


def find_records(folder: Path, row_id: str) -> Iterator[Record]:
    """The records with an id, in input order: a text, or the number that the text writes."""
    from llmbatch.folder.folder import RunFolder
    from llmbatch.folder.records import record_on

    run = RunFolder(folder)
    if not any(run.parts.scan()):
        raise FolderError(f"{folder}: no results here; is it the --output of a run?")
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
    """The rows of the input at these indexes, each with its place in words, read from the start of its window."""
    from llmbatch.core.errors import InputChanged
    from llmbatch.folder.folder import RunFolder
    from llmbatch.folder.input import kept_input
    from llmbatch.folder.order import read_order
    from llmbatch.sources.base import START
    from llmbatch.sources.opening import open_source

    source = open_source(kept_input(job.input, folder))
    order = read_order(folder)
    starts = (
        [bounds.start for bounds in RunFolder(folder).bounds()] if order is None else [b.start for b, _ in order.read]
    )
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


def _print(shown: Shown) -> None:
    from rich.console import Console

    from llmbatch.core.styles import STYLES

    console, record = Console(), shown.record
    where = f", {shown.place}" if shown.place else ""
    _heading(console, f"row {record.id} (index {record.index}{where}): {record.status}", STYLES[record.status])
    if shown.row is not None:
        _heading(console, "input")
        _text(console, json.dumps(dict(shown.row.data), ensure_ascii=False, indent=2))
    if shown.prompt is not None:
        _print_prompt(console, shown.prompt)
    if shown.problem and (record.failure is None or shown.problem != record.failure.message):
        _heading(console, "the prompt cannot be shown", "yellow")
        _text(console, shown.problem)
    for attempt in record.history:
        key = attempt.key
        step = f", step {key.step}" if key.step else ""
        sample = f", sample {key.sample}" if key.sample else ""
        _heading(console, f"attempt {key.attempt}{step}{sample}, sent back: {attempt.failure.kind}", "yellow")
        _text(console, attempt.text or "")
        _reason(console, attempt.failure)
    for name, value in (record.details or {}).items():
        _print_detail(console, name, value)
    _print_result(console, record)


def _print_prompt(console: Console, prompt: Prompt) -> None:
    for message in prompt.messages or ():
        content = message.get("content")
        _heading(console, f"prompt: {message.get('role')}")
        _text(console, content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2))
    if prompt.text is not None:
        _heading(console, "prompt")
        _text(console, prompt.text)
    if prompt.prefill:
        _heading(console, "start of the answer")
        _text(console, prompt.prefill)


def _print_detail(console: Console, name: str, value: Any) -> None:
    """What a program says of how it came to its output; of a list, such as that of its steps, each item by itself."""
    if not (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        _heading(console, name)
        _text(console, _written(value))
        return
    each = name.removesuffix("s")
    for number, item in enumerate(value):
        said = item if isinstance(item, dict) else {"output": item}
        short = {
            k: v for k, v in said.items() if k not in ("output", "item", each) and isinstance(v, str | int | float)
        }
        facts = [f"{key} {inner}" for key, inner in short.items()]
        _heading(console, ", ".join([f"{each} {said.get(each, number)}", *facts]), "red" if "error" in said else "cyan")
        for key, inner in said.items():
            if key == "output":
                _text(console, _written(inner))
            elif key not in short and key != each:
                _text(console, f"{key}: {_written(inner)}", "yellow" if key == "error" else "dim")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _print_result(console: Console, record: Record) -> None:
    if record.reasoning:
        _heading(console, "reasoning")
        _text(console, record.reasoning if isinstance(record.reasoning, str) else json.dumps(record.reasoning))
    if record.failure is not None:
        _heading(console, f"result: {record.failure.kind}", "red")
        if record.raw is not None:
            _text(console, record.raw)
        _reason(console, record.failure)
    else:
        _heading(console, "result", "green")
        _text(console, _written(record.output))
    usage = record.usage
    _text(
        console,
        f"{record.attempts} attempts, {usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.completion_tokens} completion tokens",
        "dim",
    )


def _heading(console: Console, text: str, style: str = "cyan") -> None:
    from llmbatch.core import words

    _text(console, "")
    _text(console, words.one_line(text), f"bold {style}")


def _reason(console: Console, failure: Failure) -> None:
    _text(console, f"why: {failure.message}", "yellow")


def _text(console: Console, text: str, style: str = "") -> None:
    """Outside text: no markup is read in it, and no control character gets through."""
    from rich.text import Text

    from llmbatch.core import words

    console.print(Text(words.printable(text), style=style), soft_wrap=True)
