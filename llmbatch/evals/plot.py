"""Scores in, plots of the figures and their intervals out, as a run's HTML page draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmbatch.core.words import one_line
from llmbatch.evals.scores import Figure, Scores
from llmbatch.report.page.plots import Dots, Drawn, dots

_ROWS = 40


def score_plots(scores: Scores) -> list[Dots]:
    """A plot for each metric: all rows first, then each category; a dot is the figure, a line its interval."""
    plots = []
    for metric in scores.metrics:
        figures = list(_figures(scores, metric.name))
        if figures:
            plots.append(scored_dots(metric.name, metric.kind.higher_is_better, figures, scores.confidence))
    return plots


def scored_dots(metric: str, higher_is_better: bool, figures: Sequence[Drawn], confidence: float) -> Dots:
    """Figures of one metric on an axis from 0, and to 1 where none is greater."""
    values = [end for figure in figures for end in figure[1:4] if end is not None]
    span = (min(0.0, *values), max(1.0, *values) if max(values) <= 1 else max(values))
    title = metric if higher_is_better else f"{metric}, lower is better"
    note = f"Lines are {100 * confidence:g}% intervals."
    return dots(title, figures, span=span, say=lambda at: f"{at:.3g}", note=note)


def _figures(scores: Scores, metric: str) -> Iterator[Drawn]:
    parts = [("all", scores.overall, True), *((name, part, False) for name, part in scores.categories.items())]
    for name, part, whole in parts[:_ROWS]:
        figure = part.figures.get(metric)
        if figure is not None and figure.value is not None:
            yield one_line(name, 60), figure.value, figure.low, figure.high, figure_words(figure), "in", whole


def figure_words(figure: Figure) -> str:
    """``0.62 (0.5716 to 0.6666)``."""
    if figure.value is None:
        return "no figure"
    said = f"{figure.value:.4g}"
    if figure.low is None or figure.high is None:
        return said
    return f"{said} ({figure.low:.4g} to {figure.high:.4g})"


__all__ = ["figure_words", "score_plots", "scored_dots"]
