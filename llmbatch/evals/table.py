"""Scores in, a table for the terminal out: figures with their intervals, what could not be scored, and examples that are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmbatch.core.words import count, one_line
from llmbatch.evals.examples import ScoredExample, read_examples
from llmbatch.evals.group import GroupScores
from llmbatch.evals.scores import Figure, Part, Scores

_CATEGORIES_SHOWN = 20
_EXAMPLES_SHOWN = 3


def print_scores(console: Console, scores: Scores, folder: Path) -> None:
    """The table of a run, and where to look further."""
    table = Table(title=f"{scores.scored.task} · {scores.scored.model}", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "metric", "score", f"{scores.confidence:.0%} interval", "rows"):
        table.add_column(heading, justify="right" if heading in ("score", "rows") else "left")
    categories = sorted(scores.categories.items())
    for name, part in [("all", scores.overall), *categories[:_CATEGORIES_SHOWN]]:
        _add(table, name, part)
    console.print(table)
    if len(categories) > _CATEGORIES_SHOWN:
        console.print(f"and {len(categories) - _CATEGORIES_SHOWN} more categories in scores.json")
    for said in _notes(scores):
        console.print(Text(said, style="yellow"))
    wrong = list(islice(wrong_examples(scores, folder), _EXAMPLES_SHOWN))
    if wrong:
        console.print(
            f"\nfor example (all rows are in {folder / 'examples.jsonl'}; llmbatch show {folder} ID shows one):"
        )
    for example in wrong:
        console.print(Text(_of_example(example)), soft_wrap=True)


def print_group(console: Console, group: GroupScores) -> None:
    table = Table(title=f"{group.name} · {group.metric}", title_justify="left", box=None, pad_edge=False)
    for heading in ("task", "score", "interval", "rows"):
        table.add_column(heading, justify="right" if heading in ("score", "rows") else "left")
    for name, figure in group.tasks.items():
        table.add_row(name, *_of_figure(figure))
    if group.figure is not None:
        table.add_row(Text("all", style="bold"), *_of_figure(group.figure))
    console.print(table)


def wrong_examples(scores: Scores, folder: Path) -> Iterator[ScoredExample]:
    """Rows whose first metric is the worst there is: failed, not to be read, or wrong."""
    metric = scores.metrics[0]
    bounds = metric.kind.bounds(metric.settings)
    worst = None if bounds is None else bounds[0] if metric.kind.higher_is_better else bounds[1]
    for example in read_examples(folder):
        value = example.values.get(metric.name)
        if example.error is not None or example.unread or (value is not None and value == worst):
            yield example


def _add(table: Table, name: str, part: Part) -> None:
    for number, (metric, figure) in enumerate(part.figures.items()):
        table.add_row(Text(one_line(name, 40) if number == 0 else ""), metric, *_of_figure(figure))


def _of_figure(figure: Figure) -> tuple[str, str, str]:
    interval = "" if figure.low is None or figure.high is None else f"{_number(figure.low)} to {_number(figure.high)}"
    return ("-" if figure.value is None else _number(figure.value)), interval, count(figure.rows)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _notes(scores: Scores) -> Iterator[str]:
    counts = scores.overall.counts
    if counts.failed:
        yield f"{count(counts.failed)} of {count(counts.rows)} rows failed; they count as wrong"
    if counts.unreadable:
        yield f"of {count(counts.unreadable)} rows an answer could not be read; it counts as wrong"


def _of_example(example: ScoredExample) -> str:
    wanted = _short(example.references[0]) if example.references else "-"
    if example.error is not None:
        seen = f"failed: {example.error}"
    elif example.unread:
        seen = f"cannot be read: {_short(example.unread[0])}"
    else:
        seen = f"answered {_short(example.answers[0]) if example.answers else '-'}"
    return f"  {one_line(str(example.id))}: wanted {wanted}, {seen}"


def _short(value: Any) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 80)


__all__ = ["print_group", "print_scores", "wrong_examples"]
