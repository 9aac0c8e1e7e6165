"""``llmbatch show``: a run folder and a row's id in; its input, its rendered prompt, every attempt and its result out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import row_ids, run_folders
from llmbatch.cli.pager import paged, pager_option
from llmbatch.core.errors import UsageError

if TYPE_CHECKING:
    from llmbatch.runs.shown import Shown


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
    from llmbatch.runs.shown import find_records, shown_of

    records = find_records(folder, row_id)
    if not records:
        raise UsageError(
            f"{folder}: no record has the id {row_id!r}. Its row may not be done yet (see llmbatch status), or has another id: "
            "ids come from --id-field, else the field `id`, else they are indexes from 0"
        )
    explained = shown_of(folder, records)
    if as_json:
        for shown in explained:
            click.echo(json.dumps(_as_dict(shown), ensure_ascii=False))
        return
    from llmbatch.cli.show_view import print_shown

    with paged(pager) as console:
        for shown in explained:
            print_shown(console, shown)


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
