"""``llmbatch publish``: finished runs in, a dataset with its card out, in a folder and on the hub if asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from llmbatch.cli.complete import run_folders
from llmbatch.cli.settings import JobCommand, JobOption

if TYPE_CHECKING:
    from llmbatch.publishing.publish import Published

EPILOG = """\b
A FIELD is a path in a record: output, output.score, input.text, output.0.text.
Exit codes: 0 published; 1 it failed, and nothing was published; 2 wrong usage."""


class Option(NamedTuple):
    """An option and the setting of publishing that it gives; one of type ``bool`` takes no value, and switches it on."""

    name: str
    metavar: str
    help: str
    type: Any = str
    several: bool = False


OPTIONS = {
    "Rows": (
        Option("--rows", "FILE", "accepted, children or results; by default the first of these that is there."),
        Option("--status", "STATUS", "Of the records that are published; by default ok.", several=True),
        Option("--where", "CONDITION", "What a row must meet, such as 'output.score >= 4'.", several=True),
        Option("--min-chars", "N", "Of the answer.", int),
        Option("--max-chars", "N", "Of the answer.", int),
        Option("--no-input", "", "Do without the run's input.", bool),
    ),
    "Duplicates": (
        Option("--duplicates", "WHICH", "Are dropped: near and exact (near, the default), exact, or none (keep)."),
        Option("--duplicates-in", "FIELD", "Compare rows by it; by default by input and output.", several=True),
        Option("--similarity", "S", "From which on rows are near-duplicates; by default 0.8.", float),
    ),
    "Splits": (
        Option("--split", "NAME=SHARE", "Such as test=0.1; the rest is train.", several=True),
        Option("--group-by", "FIELD", "Rows with the same value stay together; by default the input's.", several=True),
        Option("--seed", "S", "Which groups are in which split.", int),
    ),
    "Layout": (
        Option("--layout", "LAYOUT", "chat (the default), completion, preference or raw."),
        Option("--columns", "FIELD", "As a column of its own.", several=True),
        Option("--system", "FIELD", "The system message."),
        Option("--prompt", "FIELD", "The prompt; by default as the model was asked."),
        Option("--completion", "FIELD", "The answer; by default output."),
        Option("--reasoning", "", "With the thinking part of answers.", bool),
        Option("--chosen", "FIELD", "preference: the better answer."),
        Option("--rejected", "FIELD", "preference: the worse one."),
        Option("--candidates", "FIELD", "preference: a list of answers, of which the best and the worst are a pair."),
        Option("--score", "FIELD", "preference: where in each of them its score is."),
        Option("--text", "FIELD", "preference: where in each of them its text is."),
    ),
    "Dataset": (
        Option("--license", "NAME", "By the hub's name, such as apache-2.0; by default unknown."),
        Option("--title", "TEXT", "By default the name of the folder."),
        Option("--language", "CODE", "Such as en.", several=True),
        Option("--shard-mb", "N", "Size of a Parquet file; by default 256.", int),
        Option("--arrow", "", "Also as load_from_disk reads it.", bool),
        Option("--report", "", "With the page of each run, which has rows that are not in the dataset.", bool),
    ),
}
"""The options under the headings that ``--help`` lists them under."""


def _settings(command: Any) -> Any:
    for section in reversed(OPTIONS):
        for option in reversed(OPTIONS[section]):
            looks: dict[str, Any] = {"cls": JobOption, "section": section, "help": option.help}
            if option.type is bool:
                looks |= {"is_flag": True, "default": None}
            else:
                looks |= {"metavar": option.metavar, "type": option.type, "multiple": option.several}
            if option.several:
                looks["help"] += " Can be repeated."
            command = click.option(option.name, **looks)(command)
    return command


@click.command(cls=JobCommand, epilog=EPILOG)
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=run_folders
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER", help="By default DIR/dataset.")
@click.option(
    "--push-to", metavar="OWNER/NAME", help="Also put it on the hub, with the token of HF_TOKEN or hf auth login."
)
@click.option("--private", is_flag=True, default=None, help="What is made for it on the hub is private.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_settings
def publish(
    folders: tuple[Path, ...],
    output: Path | None,
    push_to: str | None,
    private: bool | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a dataset of the finished runs in DIR...: filtered, without duplicates, split, with a card that says where it is from.

    The folder is written whole or not at all, and takes the place of what llmbatch published there before. It is loaded by
    datasets.load_dataset("FOLDER").
    """
    if output is None:
        if len(folders) > 1:
            raise click.UsageError(
                "--output is missing: of several runs there is no folder that it goes into by default"
            )
        output = folders[0] / "dataset"
    from llmbatch.publishing.hub import check_name, push
    from llmbatch.publishing.publish import publish as make
    from llmbatch.publishing.publish import settings_from

    if push_to is not None:
        check_name(push_to)
    with _telling(as_json) as tell:
        done = make(folders, output, settings_from(_as_settings(given)), tell)
    if push_to is not None:
        done = replace(done, url=push(done.folder, push_to, private=private))
    if as_json:
        click.echo(json.dumps(_as_dict(done), ensure_ascii=False))
    else:
        _print(done)


def _as_settings(given: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    if settings.pop("no_input", False):
        settings["input"] = False
    if "split" in settings:
        settings["split"] = dict(map(_share, settings["split"]))
    return settings


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise click.UsageError(f"--split takes NAME=SHARE, such as test=0.1, not {text!r}") from None


@contextlib.contextmanager
def _telling(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Says on a terminal's stderr how far it is; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading") as status:
        yield status.update


def _as_dict(done: Published) -> dict[str, Any]:
    return {
        "folder": str(done.folder),
        "records": done.records,
        "rows": done.rows,
        "splits": dict(done.splits),
        "dropped": dict(done.dropped),
        "url": done.url,
    }


def _print(done: Published) -> None:
    from llmbatch.core import words

    rows = f"{words.count(done.rows)} in all, of {words.count(done.records)} records"
    click.echo(f"rows: {words.counts(done.splits)} ({rows})")
    for reason, number in done.dropped.items():
        click.echo(f"{words.count(number):>9} left out: {words.one_line(reason)}")
    click.echo(f"{done.folder}: README.md says where they are from, dropped.jsonl what was left out and why")
    if done.url is not None:
        click.echo(f"published: {done.url}")
