"""``llmbatch retry-failed``: a run folder in, its rows that are not ok run again, with other settings if given."""

from __future__ import annotations

from pathlib import Path

import click

from llmbatch.cli.complete import run_folders
from llmbatch.cli.run import watched
from llmbatch.cli.settings import JobCommand, job_options, overrides_of


@click.command("retry-failed", cls=JobCommand)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=run_folders)
@job_options("Corpus", "Run", "Sampling", "Answers", job_file=False)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell every event on stdout, as a line of JSON.")
@click.pass_context
def retry_failed(ctx: click.Context, folder: Path, quiet: bool, as_json: bool) -> None:
    """Run the rows of DIR that are not ok again.

    The settings are those of the run, with what the flags say over them: another model, more attempts, more tokens.
    """
    from llmbatch.runs.retry_failed import retry_failed as retry

    overrides = overrides_of(ctx)
    watched(
        ctx, "json" if as_json else "quiet" if quiet else "auto", lambda watcher: retry(folder, overrides, [watcher])
    )
