"""``llmbatch run``: a job in, a run folder out, watched while it fills."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from llmbatch.cli.main import command_line
from llmbatch.cli.settings import JobCommand, job_of, job_options
from llmbatch.core.errors import EngineError, ReadError, WriteError
from llmbatch.core.screen import shown

if TYPE_CHECKING:
    from llmbatch.core.events import Watcher
    from llmbatch.runs.session import RunResult

EPILOG = """\b
Exit codes: 0 every row is ok; 3 finished, some rows are not; 1 the job broke;
2 wrong usage, nothing was started; 130 stopped, the same command goes on."""

RESUMABLE = (EngineError, ReadError, WriteError)
"""What breaks a run half-way for a reason outside of it."""


@click.command(cls=JobCommand, epilog=EPILOG)
@job_options("Corpus", "Run", "Sampling", "Answers")
@click.option("--extend", is_flag=True, help="Accept an input that has grown since the run began.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell every event on stdout, as a line of JSON.")
@click.pass_context
def run(ctx: click.Context, extend: bool, quiet: bool, as_json: bool) -> None:
    """Run a model over every row of an input.

    The run folder gets one checked record for every row, in input order, in results.jsonl. The same command again goes
    on where an interrupted run stopped. A job file holds the same settings as the flags, which override it.
    """
    job = job_of(ctx)
    from llmbatch.runs.session import run_job

    watched(
        ctx, "json" if as_json else "quiet" if quiet else "auto", lambda watcher: run_job(job, [watcher], extend=extend)
    )


def watched(ctx: click.Context, mode: str, run: Callable[[Watcher], RunResult]) -> None:
    """Run something under a watcher, sum it up as the mode says, and exit with its code."""
    from llmbatch.watch.watching import watching

    try:
        with watching(mode) as watcher:
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
