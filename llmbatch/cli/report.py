"""``llmbatch report``: a run folder in, its page out: one HTML file with the run's plots, failures and records."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write it; by default report.html in DIR.",
)
def report(folder: Path, output: Path | None) -> None:
    """Write the page of the run in DIR, which every run writes at its end, anew; also while the run goes on.

    It is one HTML file that needs nothing else: what happened in a sentence, what failed and why, plots of rows, tokens and engines
    over time, and records to look through. It holds prompts and answers.
    """
    from llmbatch.cli.status import standing_of
    from llmbatch.evals.page import write_scored_page
    from llmbatch.runs.until_now import report_until_now

    standing = standing_of(folder)
    if standing.report is not None and standing.state == standing.report["outcome"]:
        path = write_scored_page(folder, standing.report, output)
    else:
        until_now = report_until_now(folder, standing.ledger, standing.rows_total)
        path = write_scored_page(folder, until_now, output, standing.sentence)
    click.echo(str(path))
