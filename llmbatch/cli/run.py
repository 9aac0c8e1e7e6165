"""``llmbatch run``: a job in, a run folder out, watched while it fills."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from llmbatch.cli.azureml import asked_of_run, score
from llmbatch.cli.main import RESUMABLE, command_line
from llmbatch.cli.settings import JobCommand, document_notes, job_of, job_options
from llmbatch.core.errors import UsageError
from llmbatch.core.screen import shown
from llmbatch.integrations import TRACKERS

if TYPE_CHECKING:
    from llmbatch.core.events import Watcher
    from llmbatch.job.job import Job
    from llmbatch.job.sweep import SweepSettings
    from llmbatch.runs.session import RunResult

EPILOG = """\b
Exit codes: 0 every row is ok; 3 finished, some rows are not; 1 the job broke;
2 wrong usage, nothing was started; 130 stopped, the same command goes on."""

track_option = click.option(
    "--track",
    type=click.Choice(list(TRACKERS)),
    help="Show the run there too while it goes on, at the server that MLflow's settings name.",
)


@click.command(cls=JobCommand, epilog=EPILOG)
@job_options("Corpus", "Run", "Sampling", "Answers")
@click.option("--extend", is_flag=True, help="Accept an input that has grown since the run began.")
@click.option("--yes", is_flag=True, help="Run a sweep of however many settings and rows without asking.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell every event on stdout, as a line of JSON.")
@track_option
@click.pass_context
def run(ctx: click.Context, extend: bool, yes: bool, quiet: bool, as_json: bool, track: str | None) -> None:
    """Run a model over every row of an input.

    The run folder gets one checked record for every row, in input order, in results.jsonl. The same command again goes
    on where an interrupted run stopped. A job file holds the same settings as the flags, which override it. A job
    document of another system (SageMaker, Bedrock, Vertex AI, Azure ML, ...) is one too.
    """
    if (scripted := asked_of_run(ctx)) is not None:
        score(ctx, scripted, quiet=quiet, as_json=as_json)
    job = job_of(ctx)
    from llmbatch.core.events import Note
    from llmbatch.runs.session import run_job

    said = None if job.sweep is None else _agreed(job, job.sweep, yes)

    def run(watcher: Watcher) -> RunResult:
        for note in (*document_notes(ctx), *([] if said is None else [said])):
            watcher(Note("info", note))
        return run_job(job, [watcher], extend=extend)

    watched(ctx, "json" if as_json else "quiet" if quiet else "auto", run, track)


def _agreed(job: Job, sweep: SweepSettings, yes: bool) -> str:
    """How many rows a sweep makes, in words, if it is small enough or a person agrees. Raises ``UsageError``."""
    from llmbatch.runs.sweep_size import sweep_size

    size = sweep_size(job, sweep)
    if size.too_large is None or yes:
        return size.said
    if sys.stdin.isatty() and sys.stderr.isatty():
        if click.confirm(f"{size.said}. Run them?", err=True):
            return size.said
        raise UsageError("nothing was started")
    raise UsageError(
        f"{size.said}; {size.too_large}. Give --yes to run it all the same, or take some values out of the sweep"
    )


def watched(ctx: click.Context, mode: str, run: Callable[[Watcher], RunResult], track: str | None = None) -> None:
    """Run something under a watcher, and a tracker of this name, sum it up as the mode says, and exit with its code."""
    from llmbatch.integrations.tracking import tracking
    from llmbatch.watch.watching import watching

    try:
        with watching(mode) as screen, tracking(track, screen) as watcher:
            result = run(watcher)
    except RESUMABLE as error:
        error.add_note(f"What was finished is kept; to go on: {command_line(ctx)}")
        raise
    if mode == "auto":
        with shown(sys.stdout):
            _print_summary(result, command_line(ctx))
    elif mode == "quiet" and result.exit_code != 0:
        from llmbatch.report.summary import headline

        with shown(sys.stderr):
            click.echo(f"{result.folder}: {headline(result.report)}", err=True)
    ctx.exit(result.exit_code)


def _print_summary(result: RunResult, command: str) -> None:
    from rich.console import Console

    from llmbatch.report.summary import print_summary

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            """Rich's own way is to end the program with 1."""
            raise BrokenPipeError

    print_summary(Screen(), result.report, command)
