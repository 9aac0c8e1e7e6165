"""A folder of an evaluation in, its page with its scores out. And that of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.files import atomic_write
from llmbatch.core.words import count
from llmbatch.evals.compare import Compared, Comparison, letters_of, said_of, verdict
from llmbatch.evals.plot import figure_words, score_plots
from llmbatch.evals.scores import Scores, read_scores
from llmbatch.report.page.frame import page
from llmbatch.report.page.plots import Dots, dots
from llmbatch.report.page.sample import text_of
from llmbatch.report.page.story import Tile
from llmbatch.report.report import Report
from llmbatch.runs.page import write_page


def write_scored_page(folder: Path, report: Report, to: Path | None = None, headline: str = "") -> Path:
    """The page of an evaluation's folder, with its scores; returns where it is. Raises ``FolderError`` and ``WriteError``."""
    scores = read_scores(folder)
    return write_page(folder, report, None, score_plots(scores), to, headline or _scored(scores))


def _scored(scores: Scores) -> str:
    """``sums: exact_match 0.62 (0.5716 to 0.6666) over 400 rows``."""
    metric, counts = scores.metrics[0].name, scores.overall.counts
    said = (
        f"{scores.scored.task}: {metric} {figure_words(scores.overall.figures[metric])} over {count(counts.rows)} rows"
    )
    return f"{said}, of which {count(counts.failed)} failed" if counts.failed else said


def write_comparison(comparison: Comparison, path: Path) -> None:
    """The page of a comparison. Raises ``WriteError``."""
    letters = letters_of(comparison)
    verdicts = [verdict(each, letters) for each in comparison.compared]
    examples = [
        {
            "id": json.dumps(each.id, ensure_ascii=False),
            "better": letters[_winner(comparison, each.gain)],
            "references": said_of(each.references),
            "answers": [
                {"title": f"{letters[name]}: {name}", "text": text_of(said_of(said)), "why": ""}
                for name, said in each.answers.items()
            ],
        }
        for each in comparison.examples
    ]
    shown = page(
        "compare.html",
        comparison=comparison,
        letters=letters,
        headline=_headline(comparison),
        verdicts=verdicts,
        tiles=_tiles(comparison.compared[0], letters) if comparison.compared else [],
        plots=_plots(comparison, letters),
        percent=f"{100 * comparison.confidence:g}%",
        examples=examples,
        p=_p,
    )
    atomic_write(path, shown)


def _headline(comparison: Comparison) -> str:
    """Which run is the best by the first metric, and which of the others that is more than luck of."""
    if not comparison.compared:
        return "Nothing could be compared"
    metric = comparison.compared[0].metric
    found = [each for each in comparison.compared if each.metric is metric]
    values = {each.first: each.difference.first for each in found}
    values |= {each.second: each.difference.second for each in found}
    best = (max if metric.kind.higher_is_better else min)(values, key=values.__getitem__)
    beaten = [
        each.first if each.second == best else each.second
        for each in found
        if each.decided and best == (each.second if each.second_is_better else each.first)
    ]
    if not beaten:
        return f"{comparison.task}: by {metric.name} no run is better than another by more than luck may be"
    against = ", ".join(f"{name} ({values[name]:.4g})" for name in beaten)
    said = f"{best} is better than {against} by {metric.name}: {values[best]:.4g}"
    same = [name for name in values if name != best and name not in beaten]
    return f"{said}; it cannot be told apart from {', '.join(same)}" if same else said


def _winner(comparison: Comparison, gain: float) -> str:
    """Of the first two runs the one that did a row better."""
    first, second = list(comparison.runs)[:2]
    return second if gain > 0 else first


def _tiles(compared: Compared, letters: Mapping[str, str]) -> list[Tile]:
    """The four figures of the first metric of the first two runs."""
    gap, name = compared.difference, compared.metric.name
    p = "no test" if compared.p_adjusted is None else f"p {_p(compared.p_adjusted)}"
    between = f"{gap.interval.low:+.3g} to {gap.interval.high:+.3g}" if gap.interval else ""
    by_row = [gap.won, gap.lost, gap.tied]
    rows = " / ".join(count(number) for number in by_row if number is not None)
    kind = "" if not compared.decided else "ok" if compared.second_is_better else "bad"
    return [
        Tile(f"{letters[compared.first]}: {name}", f"{gap.first:.4g}", compared.first),
        Tile(f"{letters[compared.second]}: {name}", f"{gap.second:.4g}", compared.second, kind),
        Tile("difference", f"{gap.value:+.3g}", between, kind),
        Tile("rows", count(gap.rows), " · ".join(filter(None, (p, f"{rows} won/lost/tied" if rows else "")))),
    ]


def _plots(comparison: Comparison, letters: Mapping[str, str]) -> list[Dots]:
    """How far apart each two runs are, a plot a metric, with a line where there is no difference."""
    by_metric: dict[str, list[Compared]] = {}
    for each in comparison.compared:
        by_metric.setdefault(each.metric.name, []).append(each)
    plots = []
    for name, found in by_metric.items():
        figures: list[Any] = []
        for each in found:
            gap = each.difference
            low, high = (gap.interval.low, gap.interval.high) if gap.interval else (None, None)
            kind = "grey" if not each.decided else "ok" if each.second_is_better else "bad"
            said = f"{gap.value:+.3g}" + (f" ({low:+.3g} to {high:+.3g})" if low is not None else "")
            figures.append(
                (f"{letters[each.second]} against {letters[each.first]}", gap.value, low, high, said, kind, False)
            )
        ends = [abs(end) for figure in figures for end in figure[1:4] if end is not None]
        far = max([*ends, 1e-9])
        better = "" if found[0].metric.kind.higher_is_better else ", lower is better"
        title = f"{name}{better}"
        plots.append(
            dots(
                title,
                figures,
                span=(-far, far),
                say=lambda at: f"{at:+.3g}" if at else "0",
                lines=[(0.0, "no difference")],
            )
        )
    return plots


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


__all__ = ["write_comparison", "write_scored_page"]
