"""``llmbatch azureml``: a batch deployment or parallel job of Azure ML in, its output folder out, made on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from llmbatch.cli.main import RESUMABLE, command_line
from llmbatch.cli.settings import JobCommand, asset_option, assets_of, job_file_of, overrides_of
from llmbatch.core.screen import shown

if TYPE_CHECKING:
    from llmbatch.azureml.run import Scored

EPILOG = """\b
Exit codes: 0 every item has its row; 3 finished, some items failed, and the thresholds
tolerate it; 1 more failed than that, or the run broke; 2 wrong usage, nothing was started;
130 stopped, the same command goes on."""


@click.group()
def azureml() -> None:
    """Batch deployments and parallel jobs of Azure ML, on this machine."""


@azureml.command(cls=JobCommand, epilog=EPILOG)
@click.argument("document", metavar="DEPLOYMENT.yml", type=click.Path(path_type=Path))
@click.option("--input", "source", metavar="FOLDER|GLOB|URL", help="The files; else what the document itself names.")
@click.option(
    "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Where the output file goes."
)
@asset_option()
@click.option("--to", metavar="URL|DIR", help="Copy the finished files there, e.g. to az://container/prefix/.")
@click.option("--step", metavar="NAME", help="Of a pipeline, the parallel job that is meant.")
@click.option(
    "--python", default=sys.executable, metavar="PATH", help="The Python that the script runs in; else this one."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell how it ended on stdout, as JSON.")
@click.pass_context
def run(
    ctx: click.Context, document: Path, source: str | None, output: Path, to: str | None, step: str | None, python: str,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the scoring script of DEPLOYMENT.yml over every file of an input.

    Mini-batches, time-outs, tries and thresholds are as the document says. The same command again goes on where a run was killed.
    """
    score(ctx, Asked(document, source, output, to, step, python), quiet=quiet, as_json=as_json)


class Asked(NamedTuple):
    """What a command line says of a document."""

    document: Path
    source: str | None
    output: Path
    to: str | None = None
    step: str | None = None
    python: str = sys.executable


def score(ctx: click.Context, asked: Asked, *, quiet: bool, as_json: bool) -> None:
    """Run a document's script, tell how it goes, and exit with its code."""
    from llmbatch.azureml import upload
    from llmbatch.azureml.run import run_scoring
    from llmbatch.systems.azure_ml.reading import read_scoring

    def say(line: str) -> None:
        if not quiet:
            with shown(sys.stderr):
                click.echo(line, err=True)

    scoring = read_scoring(asked.document, assets_of(ctx), asked.step)
    for line in (*scoring.read, *scoring.without_effect):
        say(line)
    source = asked.source or scoring.input
    if source is None:
        raise click.UsageError("no input: give its files, --input FOLDER")
    if asked.to is not None:
        upload.check(asked.to, asked.output)
    try:
        scored = run_scoring(scoring, source, asked.output, python=asked.python, say=say)
        if asked.to is not None:
            upload.upload(scored, asked.to, say)
    except RESUMABLE as error:
        error.add_note(f"What was finished is kept; to go on: {command_line(ctx)}")
        raise
    if as_json:
        with shown(sys.stdout):
            click.echo(json.dumps(_told(scored), indent=1))
    elif not quiet:
        with shown(sys.stdout):
            click.echo(str(scored.file or scored.output))
    if scored.aborted is not None:
        with shown(sys.stderr):
            click.echo(f"Error: the job failed: {scored.aborted}", err=True)
    ctx.exit(scored.exit_code)


def asked_of_run(ctx: click.Context) -> Asked | None:
    """What ``llmbatch run`` was asked for, where its job file is a document with a scoring script; else ``None``."""
    document = job_file_of(ctx)
    if document is None or document.suffix not in (".yml", ".yaml") or not document.is_file():
        return None
    from llmbatch.core.errors import JobError
    from llmbatch.systems.azure_ml.document import read_yaml
    from llmbatch.systems.azure_ml.reading import has_script

    try:
        if not has_script(read_yaml(document).value):
            return None
    except JobError:  # whoever else can read it says so
        return None
    given = overrides_of(ctx)
    source, output, sinks = given.pop("input", {}), given.pop("output", None), given.pop("sinks", {})
    others = [f"input.{key}" for key in source if key != "path"] + [f"sinks.{key}" for key in sinks if key != "to"]
    if other := next(iter([*given, *others]), None):
        raise JobError(f"{document}: has a scoring script, which {other} means nothing to: leave it out")
    if output is None:
        raise JobError(f"{document}: has a scoring script: say where its output goes, --output DIR")
    return Asked(document, source.get("path"), Path(output), sinks.get("to"))


def _told(scored: Scored) -> dict[str, object]:
    return {
        "outcome": "finished" if scored.aborted is None else "aborted",
        "aborted": scored.aborted,
        "output": str(scored.file or scored.output),
        "files": scored.items,
        "mini_batches_all": scored.mini_batches,
        **scored.counts._asdict(),
    }
