"""``llmbatch report``: a run folder in, its page out: one HTML file with the run's plots, failures and records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.cli.complete import run_folders

if TYPE_CHECKING:
    from llmbatch.runs.standing import Standing


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
    from llmbatch.runs.standing import standing_of

    click.echo(str(write(folder, standing_of(folder), output)))


def write(folder: Path, standing: Standing, output: Path | None) -> Path:
    """The page of a run as it stands. Only of an evaluation is what evaluations need imported: it may not be installed."""
    from llmbatch.runs.until_now import report_until_now

    known, headline = standing.report, ""
    if known is None or standing.state != known["outcome"]:
        known = report_until_now(folder, standing.ledger, standing.rows_total)
        headline = standing.sentence
    if (folder / "scores.json").exists():
        from llmbatch.evals.page import write_scored_page

        return write_scored_page(folder, known, output, headline)
    from llmbatch.runs.page import write_page

    return write_page(folder, known, to=output, headline=headline)
