"""``llmbatch report``: a run folder in, its page out: one HTML file with the run's plots, failures and records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.cli.complete import run_folders

if TYPE_CHECKING:
    from llmbatch.report.report import Report


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write it; by default report.html in DIR.",
)
def report(folder: Path, output: Path | None) -> None:
    """Write the page of the run in DIR, which every run writes at its end, anew; also while the run goes on.

    It is one HTML file that needs nothing else: what happened in a sentence, what failed and why, plots of rows, tokens and engines
    over time, and records to look through. It holds prompts and answers. Of a folder with several evaluations it is one
    page over all of them.
    """
    if any(folder.glob("*/scores.json")):
        from llmbatch.evals.group_page import holds_evaluations, write_group_page

        if holds_evaluations(folder):
            click.echo(str(write_group_page(folder, output)))
            return
    from llmbatch.cli.status import standing_of
    from llmbatch.runs.until_now import report_until_now

    standing = standing_of(folder)
    if standing.report is not None and standing.state == standing.report["outcome"]:
        path = _write(folder, standing.report, output)
    else:
        until_now = report_until_now(folder, standing.ledger, standing.rows_total)
        path = _write(folder, until_now, output, standing.sentence)
    click.echo(str(path))


def _write(folder: Path, report: Report, output: Path | None, headline: str = "") -> Path:
    """Only of an evaluation is what evaluations need imported: it may not be installed."""
    if (folder / "scores.json").exists():
        from llmbatch.evals.page import write_scored_page

        return write_scored_page(folder, report, output, headline)
    from llmbatch.core.errors import LlmbatchError
    from llmbatch.job.job import job_of
    from llmbatch.runs.page import write_page

    try:
        job = job_of(folder)
    except LlmbatchError:  # the page says that it has no prompts
        job = None
    return write_page(folder, report, job, (), output, headline)
