"""``llmbatch azureml``: a batch deployment or parallel job of Azure ML in, its output folder out, made on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.cli.main import command_line
from llmbatch.cli.settings import JobCommand, asset_option, assets_of
from llmbatch.core.errors import RunError
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
@click.option("--step", metavar="NAME", help="Of a pipeline, the parallel job that is meant.")
@click.option(
    "--python", default=sys.executable, metavar="PATH", help="The Python that the script runs in; else this one."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell how it ended on stdout, as JSON.")
@click.pass_context
def run(
    ctx: click.Context, document: Path, source: str | None, output: Path, step: str | None, python: str, quiet: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the scoring script of DEPLOYMENT.yml over every file of an input.

    Mini-batches, time-outs, tries and thresholds are as the document says. The same command again goes on where a run was killed.
    """
    from llmbatch.azureml.run import run_scoring
    from llmbatch.systems.azure_ml.reading import read_scoring

    def say(line: str) -> None:
        if not quiet:
            with shown(sys.stderr):
                click.echo(line, err=True)

    scoring = read_scoring(document, assets_of(ctx), step)
    for line in (*scoring.read, *scoring.without_effect):
        say(line)
    source = source or scoring.input
    if source is None:
        raise click.UsageError("no input: give its files, --input FOLDER")
    try:
        scored = run_scoring(scoring, source, output, python=python, say=say)
    except RunError as error:
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


def _told(scored: Scored) -> dict[str, object]:
    return {
        "outcome": "finished" if scored.aborted is None else "aborted",
        "aborted": scored.aborted,
        "output": str(scored.file or scored.output),
        "files": scored.items,
        "mini_batches_all": scored.mini_batches,
        **scored.counts._asdict(),
    }
