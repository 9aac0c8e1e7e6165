"""``llmbatch compare``: folders of finished evaluations in; how far apart they are, and whether that is luck, out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from llmbatch.evals.compare import Compared, Comparison, SideBySide


@click.command()
@click.argument("folders", metavar="RUN_A RUN_B [RUN_C ...]", nargs=-1, type=click.Path(path_type=Path), required=True)
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Compare only this metric; may be repeated.")
@click.option("--examples", default=3, show_default=True, type=click.IntRange(0), help="Rows to show for either side.")
@click.option(
    "--confidence", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.9999), help="Of the intervals."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is drawn at random.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def compare(
    folders: tuple[Path, ...], metrics: tuple[str, ...], examples: int, confidence: float, seed: int, as_json: bool
) -> None:
    """Say which of the finished evaluations RUN_A RUN_B [RUN_C ...] of one task is better, and whether that is luck.

    Rows are paired by their id. A difference is that of the later run from the earlier one.
    """
    from llmbatch.evals.compare import compare as compare_runs
    from llmbatch.evals.compare import comparison_to_dict

    found = compare_runs(folders, metrics=metrics, examples=examples, confidence=confidence, seed=seed)
    if as_json:
        click.echo(json.dumps(comparison_to_dict(found), ensure_ascii=False))
    else:
        _print(found)


def _print(comparison: Comparison) -> None:
    from rich.console import Console

    from llmbatch.core.words import count, printable

    console = Console()
    several = len(comparison.runs) > 2
    console.print(printable(f"{comparison.task}: {count(comparison.rows)} rows, paired by id"), markup=False)
    console.print(_table(comparison, several))
    for compared in comparison.compared:
        console.print(printable(_verdict(compared, several)), markup=False, highlight=False)
    for note in comparison.notes:
        console.print(printable(f"Note: {note}"), markup=False, highlight=False, style="yellow")
    if comparison.examples:
        first, second = list(comparison.runs)[:2]
        heading = f"\nRows at which {first} and {second} differ most by {comparison.examples_by}:"
        console.print(printable(heading), markup=False, highlight=False)
        for example in comparison.examples:
            for line in _example(example, second if example.gain > 0 else first):
                console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(comparison: Comparison, several: bool) -> Table:
    from rich.table import Table

    from llmbatch.core.words import count, printable

    first, second = list(comparison.runs)[:2]
    names = ("runs", "first", "second") if several else (first, second)
    percent = f"{100 * comparison.confidence:g}% interval"
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", overflow="fold")
    for name in (*names, "difference", percent, "p (Holm)" if several else "p", "won", "lost", "tied"):
        table.add_column(printable(name), justify="left" if name == "runs" else "right", overflow="fold")
    for compared in comparison.compared:
        gap = compared.difference
        arrow = "" if compared.metric.kind.higher_is_better else " (lower is better)"
        between = f"{_signed(gap.interval.low)} to {_signed(gap.interval.high)}" if gap.interval else "-"
        rows = ["-" if number is None else count(number) for number in (gap.won, gap.lost, gap.tied)]
        runs = [printable(f"{compared.first}, {compared.second}")] if several else []
        values = [f"{gap.first:.4g}", f"{gap.second:.4g}", _signed(gap.value), between, _p(compared.p_adjusted)]
        table.add_row(printable(compared.metric.name) + arrow, *runs, *values, *rows)
    return table


def _verdict(compared: Compared, several: bool) -> str:
    """A sentence: whether the rows can tell the two apart, and what it would take."""
    from llmbatch.core.words import count

    gap = compared.difference
    better = compared.second if (gap.value > 0) == compared.metric.kind.higher_is_better else compared.first
    of = f"{compared.metric.name}, {compared.first} and {compared.second}" if several else compared.metric.name
    by = f" ({gap.test})" if gap.test else ""
    if compared.decided is None:
        return f"{of}: too few rows to tell the runs apart."
    if compared.decided:
        return f"{of}: {better} is better{by}."
    if gap.detectable is None:
        return f"{of}: no row differs."
    needed = (
        f"; one as large as the one that was seen takes about {count(gap.rows_needed)} rows" if gap.rows_needed else ""
    )
    return (
        f"{of}: these {count(gap.rows)} rows cannot tell the runs apart{by}. They would show a difference of {gap.detectable:.2g} "
        f"in 80 of 100 times{needed}."
    )


def _example(example: SideBySide, better: str) -> list[str]:
    from llmbatch.core.words import one_line

    lines = [one_line(f"  row {json.dumps(example.id, ensure_ascii=False)}, better: {better}")]
    if example.references:
        lines.append(f"    {'reference':<12} {one_line(_said(example.references))}")
    return [
        *lines,
        *(f"    {one_line(name, 12):<12} {one_line(_said(said))}" for name, said in example.answers.items()),
    ]


def _said(values: Any) -> str:
    return " | ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"
