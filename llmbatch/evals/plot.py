"""Scores in, plots of the figures and their intervals out, as a run's HTML page draws them."""

from __future__ import annotations

from collections.abc import Iterator

from llmbatch.core.words import one_line
from llmbatch.evals.scores import Figure, Scores
from llmbatch.report.page.plots import Dots, dots

_ROWS = 40


def score_plots(scores: Scores) -> list[Dots]:
    """A plot for each metric: all rows first, then each category; a dot is the figure, a line its interval."""
    plots = []
    for metric in scores.metrics:
        figures = list(_figures(scores, metric.name))
        if figures:
            better = "" if metric.kind.higher_is_better else ", lower is better"
            values = [end for figure in figures for end in figure[1:4] if end is not None]
            span = (min(0.0, *values), max(1.0, *values) if max(values) <= 1 else max(values))
            note = f"Lines are {100 * scores.confidence:g}% intervals."
            plots.append(dots(f"{metric.name}{better}", figures, span=span, say=lambda at: f"{at:.3g}", note=note))
    return plots


def _figures(
    scores: Scores, metric: str
) -> Iterator[tuple[str, float | None, float | None, float | None, str, str, bool]]:
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


__all__ = ["figure_words", "score_plots"]
