"""``llmbatch compare``: folders of finished evaluations in; how far apart they are, and whether that is luck, out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.cli.complete import run_folders

if TYPE_CHECKING:
    from rich.table import Table

    from llmbatch.evals.compare import Comparison, SideBySide


@click.command()
@click.argument(
    "folders",
    metavar="RUN_A RUN_B [RUN_C ...]",
    nargs=-1,
    type=click.Path(path_type=Path),
    required=True,
    shell_complete=run_folders,
)
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Compare only this metric; may be repeated.")
@click.option("--examples", default=3, show_default=True, type=click.IntRange(0), help="Rows to show for either side.")
@click.option(
    "--confidence", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.9999), help="Of the intervals."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is drawn at random.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write it as a page too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def compare(
    folders: tuple[Path, ...],
    metrics: tuple[str, ...],
    examples: int,
    confidence: float,
    seed: int,
    html: Path | None,
    as_json: bool,
) -> None:
    """Say which of the finished evaluations RUN_A RUN_B [RUN_C ...] of one task is better, and whether that is luck.

    Rows are paired by their id. A difference is that of the later run from the earlier one.
    """
    from llmbatch.evals.compare import compare as compare_runs
    from llmbatch.evals.compare import comparison_to_dict

    found = compare_runs(folders, metrics=metrics, examples=examples, confidence=confidence, seed=seed)
    if html is not None:
        from llmbatch.evals.page import write_comparison

        write_comparison(found, html)
    if as_json:
        click.echo(json.dumps(comparison_to_dict(found), ensure_ascii=False))
    else:
        _print(found)


def _print(comparison: Comparison) -> None:
    from rich.console import Console

    from llmbatch.core.words import count, printable
    from llmbatch.evals.compare import letters_of, verdict

    console = Console()
    letters = letters_of(comparison)
    lines = [f"{comparison.task}: {count(comparison.rows)} rows, paired by id"]
    lines += [f"  {letters[name]}  {name} ({comparison.models[name]})" for name in comparison.runs]
    for line in lines:
        console.print(printable(line), markup=False, highlight=False)
    console.print(_table(comparison, letters))
    for compared in comparison.compared:
        console.print(printable(verdict(compared, letters)), markup=False, highlight=False)
    for note in comparison.notes:
        console.print(printable(f"Note: {note}"), markup=False, highlight=False, style="yellow")
    if comparison.examples:
        console.print(
            f"\nRows at which A and B differ most by {comparison.examples_by}:", markup=False, highlight=False
        )
    for example in comparison.examples:
        for line in _example(example, letters):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(comparison: Comparison, letters: Mapping[str, str]) -> Table:
    from rich.table import Table

    from llmbatch.core.words import count, printable

    several = len(letters) > 2
    percent = f"{100 * comparison.confidence:g}% interval"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("metric", overflow="fold")
    figures = ("runs", "first", "second") if several else ("A", "B")
    for name in (*figures, "difference", percent, "p (Holm)" if several else "p", "won/lost/tied"):
        table.add_column(name, justify="left" if name == "runs" else "right", no_wrap=True)
    for compared in comparison.compared:
        gap = compared.difference
        runs = [f"{letters[compared.first]} {letters[compared.second]}"] if several else []
        between = f"{gap.interval.low:+.3g} {gap.interval.high:+.3g}" if gap.interval else "-"
        by_row = [gap.won, gap.lost, gap.tied]
        rows = "/".join(count(number) for number in by_row if number is not None) or "-"
        values = [f"{gap.first:.4g}", f"{gap.second:.4g}", f"{gap.value:+.3g}", between, _p(compared.p_adjusted), rows]
        table.add_row(printable(compared.metric.name), *runs, *values)
    return table


def _example(example: SideBySide, letters: Mapping[str, str]) -> list[str]:
    from llmbatch.core.words import one_line
    from llmbatch.evals.compare import said_of

    better = "B" if example.gain > 0 else "A"
    lines = [f"  row {one_line(json.dumps(example.id, ensure_ascii=False))}: {better} is better"]
    if example.references:
        lines.append(f"    right  {one_line(said_of(example.references))}")
    return [*lines, *(f"    {letters[name]:<5}  {one_line(said_of(said))}" for name, said in example.answers.items())]


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"
