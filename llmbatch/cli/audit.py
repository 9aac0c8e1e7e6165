"""``llmbatch audit``: a run folder in, what holds and what does not out; the exit code says whether all of it holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.cli.complete import run_folders

if TYPE_CHECKING:
    from llmbatch.audit.audit import AuditReport


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def audit(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Prove that the run folder DIR is whole, or say what is missing or damaged in it.

    Exit codes: 0 whole and complete; 3 whole, but rows are owed; 1 damaged.
    """
    from llmbatch.audit.audit import audit as look_at

    report = look_at(folder)
    if as_json:
        facts = {"ok": report.ok, "complete": report.complete, **asdict(report), "folder": str(folder)}
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        _print(report)
    ctx.exit(report.exit_code)


def _print(report: AuditReport) -> None:
    from llmbatch.core import words

    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        click.echo(f"{'ok' if check.ok else 'DAMAGED':8}{check.name:{width}}  {words.printable(check.seen)}")
        for problem in check.problems:
            click.echo(f"{'':8}{words.printable(problem)}")
    rows = f"{words.count(report.rows_done)} rows are done"
    owed = "the input could not be read" if report.rows_owed is None else f"{words.count(report.rows_owed)} are owed"
    verdict = "whole and complete" if report.complete else "whole, not complete" if report.ok else "damaged"
    pending = f"; {words.printable(report.pending)}" if report.pending else ""
    click.echo(f"{report.folder}: {verdict}; {rows}, {owed}{pending}")
