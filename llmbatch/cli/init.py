"""``llmbatch init``: a corpus in; a commented job file and prompt for it, to begin with, out."""

from __future__ import annotations

import os
import shlex
import sys
from glob import has_magic
from pathlib import Path

import click

from llmbatch.cli import complete
from llmbatch.core.errors import UsageError
from llmbatch.core.screen import shown
from llmbatch.scaffold import USES

_MODEL = "Qwen/Qwen3-8B"


@click.command()
@click.argument("corpus", metavar="CORPUS", shell_complete=complete.files)
@click.option(
    "--for", "use", type=click.Choice(list(USES)), help="What is to be done; by default told from the columns."
)
@click.option("--text", metavar="COLUMN", help="The column with the text; by default told from names and lengths.")
@click.option("--id", "id_", metavar="COLUMN", help="The column that names a row.")
@click.option(
    "--label", metavar="COLUMN", help="The column with a row's class, or for evaluate with what would be right."
)
@click.option("--model", default=_MODEL, show_default=True, metavar="MODEL", shell_complete=complete.folders)
@click.option(
    "--folder", default=Path(), type=click.Path(path_type=Path), metavar="DIR", help="Where to write; by default here."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
def init(
    corpus: str,
    use: str | None,
    text: str | None,
    id_: str | None,
    label: str | None,
    model: str,
    folder: Path,
    force: bool,
) -> None:
    """Look at CORPUS and write a commented job file and a prompt for it, to begin with.

    CORPUS is a file (JSON lines, CSV, Parquet), a glob, a folder of texts or a dataset. Its first rows are looked at; which column
    holds the text, the id and the label is a guess, which --text, --id and --label correct. Nothing is written over without
    --force. For evaluate it is a task file, for llmbatch eval.

    \b
    Example: llmbatch init reviews.csv --for classify && llmbatch run job.yaml
    """
    from llmbatch.core.table import find
    from llmbatch.scaffold.corpus import look_at
    from llmbatch.scaffold.text import table
    from llmbatch.scaffold.uses import Place

    seen = look_at(corpus).with_columns(text, id_, label)
    chosen = use or ("classify" if seen.label is not None else "summarize")
    files = find(USES, chosen, "use")(seen, Place(_from(corpus, folder), model))
    _write(files.texts, folder, force)
    with shown(sys.stdout):
        for line in table(seen):
            click.echo(line)
        if use is None:
            click.echo(f"--for {chosen} was taken; others are {', '.join(name for name in USES if name != chosen)}")
        click.echo(f"\nwritten: {', '.join(str(folder / name) for name in files.texts)}")
        place = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
        click.echo(f"to try it without a model: {place}{files.command} {files.rehearsal}")
        click.echo(f"to run it:                 {place}{files.command}")


def _from(corpus: str, folder: Path) -> str:
    """How a file in the folder names the corpus."""
    from llmbatch.sources.places import is_url

    path = Path(corpus).expanduser()
    if corpus == "-" or is_url(corpus) or not (path.exists() or has_magic(corpus)):
        return corpus  # stdin, a URL, or a dataset's name
    if path.is_absolute():
        return str(path)
    relative = os.path.relpath(path, folder)
    return relative if relative.startswith("..") else f"./{relative}"


def _write(texts: dict[str, str], folder: Path, force: bool) -> None:
    from llmbatch.core.files import atomic_write, writing

    there = [str(folder / name) for name in texts if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            f"{', '.join(there)}: {'is' if len(there) == 1 else 'are'} there already and not written over; --folder DIR writes "
            "elsewhere, --force writes over"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write(folder / name, text.encode())
