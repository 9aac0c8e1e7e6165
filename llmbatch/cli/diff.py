"""``llmbatch diff``: two run folders in, the rows that ended otherwise in one than in the other out, counts first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import run_folders
from llmbatch.cli.pager import paged, pager_option
from llmbatch.core.errors import RunError, UsageError

if TYPE_CHECKING:
    from llmbatch.folder.differences import DiffCounts, Difference

EPILOG = """\b
Exit codes, as diff's: 0 no row differs; 1 some do; 2 something else is wrong."""

_KINDS = {"status": ("status",), "answer": ("answer",), "missing": ("only_a", "only_b")}
"""What ``--only`` names, and the kinds of differences that it means."""
_SHOWN = 20
_IN_MEMORY = 16 << 20  # bytes of differences that are to be shown once all are counted


@click.command(epilog=EPILOG)
@click.argument("first", metavar="RUN_A", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.argument("second", metavar="RUN_B", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option("--only", type=click.Choice(list(_KINDS)), multiple=True, help="Only these differences. Can be repeated.")
@click.option("--limit", metavar="N", type=click.IntRange(0), help=f"Rows to show; 0: all; by default {_SHOWN}.")
@click.option(
    "--json", "as_json", is_flag=True, help="A line of JSON with the counts, then one for each row, all of them."
)
@pager_option
@click.pass_context
def diff(
    ctx: click.Context,
    first: Path,
    second: Path,
    only: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    pager: bool,
) -> None:
    """Show which rows ended otherwise in the run folder RUN_B than in RUN_A, and what changed in their answers.

    Rows are paired by their id. A row differs where its status or its kind of failure changed, where its answer is another, or
    where one run alone has it; what it took (tokens, attempts) does not count.

    \b
    Example: llmbatch diff out-before out-after --only answer
    """
    from llmbatch.folder.differences import DiffCounts, differences

    kinds = [kind for name in only or _KINDS for kind in _KINDS[name]]
    most = (0 if as_json else _SHOWN) if limit is None else limit
    counts = DiffCounts()
    try:
        notes = [note for folder in (first, second) if (note := _looked_at(folder))]
        with SpooledTemporaryFile(_IN_MEMORY) as kept:
            differing = 0
            for found in differences(_lines(first), _lines(second), counts):
                if found.kind in kinds:
                    differing += 1
                    if differing <= most or not most:
                        _keep(kept, found)
            kept.seek(0)
            if as_json:
                _tell_json(counts, kept)
            else:
                _show((first, second), counts, differing, notes, kept, pager=pager and bool(most))
    except RunError as error:  # with diff, 1 says that there are differences
        raise UsageError(str(error)) from error
    ctx.exit(1 if differing else 0)


def _looked_at(folder: Path) -> str | None:
    """What a person should know of a run before it is compared. Raises ``UsageError`` where there is none."""
    from llmbatch.folder.folder import read_manifest

    if folder.is_file():
        raise UsageError(f"{folder}: is a file; give the run folder, the --output of a run: {folder.parent}")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder}: no run has begun here (there is no run.json); is it the --output of a run?")
    if manifest.finished:
        return None
    return f"{folder}: this run has not finished; rows that it has not done yet count as missing"


def _lines(folder: Path) -> Iterator[bytes]:
    from llmbatch.folder.folder import RunFolder

    return RunFolder(folder).record_lines()


def _keep(kept: IO[bytes], found: Difference) -> None:
    kept.write(json.dumps([found.kind, found.a, found.b]).encode() + b"\n")


def _kept(kept: IO[bytes]) -> Iterator[Difference]:
    from llmbatch.folder.differences import Difference

    for line in kept:
        yield Difference(*json.loads(line))


def _tell_json(counts: DiffCounts, kept: IO[bytes]) -> None:
    changes = [{"a": a, "b": b, "rows": rows} for (a, b), rows in counts.changes.items()]
    said: dict[str, Any] = {"rows_a": counts.rows_a, "rows_b": counts.rows_b, "same": counts.same}
    said.update(counts.by_kind.items())
    click.echo(json.dumps({**said, "changes": changes}, ensure_ascii=False))
    for found in _kept(kept):
        record = found.a or found.b or {}
        line = {"id": record["id"], "differs": found.kind, "a": found.a, "b": found.b}
        click.echo(json.dumps(line, ensure_ascii=False))


def _show(
    folders: tuple[Path, Path], counts: DiffCounts, differing: int, notes: list[str], kept: IO[bytes], *, pager: bool
) -> None:
    from llmbatch.cli.diff_view import print_counts, print_difference, print_rest

    with paged(pager) as console:
        print_counts(console, folders, counts, notes)
        shown = 0
        for found in _kept(kept):
            print_difference(console, found)
            shown += 1
        print_rest(console, differing - shown)
