"""Scores in, a plot of the figures and their intervals out, as SVG for the run's HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import NamedTuple

from llmbatch.core.words import one_line
from llmbatch.evals.scores import Figure, Scores

_WIDTH, _LABEL, _VALUE, _LINE = 640, 210, 170, 22  # pixels; _LABEL and _VALUE are what is left and right of the plot
_ROWS = 40


class _Bar(NamedTuple):
    label: str
    figure: Figure
    whole: bool


def scores_svg(scores: Scores) -> str:
    """A plot for each metric: all rows first, then each category; a dot is the figure, a line its interval."""
    plots = [_plot(metric.name, list(_bars(scores, metric.name))) for metric in scores.metrics]
    return "\n".join(plot for plot in plots if plot)


def _bars(scores: Scores, metric: str) -> Iterator[_Bar]:
    parts = [("all", scores.overall, True), *((name, part, False) for name, part in scores.categories.items())]
    for name, part, whole in parts[:_ROWS]:
        if (figure := part.figures.get(metric)) is not None and figure.value is not None:
            yield _Bar(name, figure, whole)


def _plot(metric: str, bars: list[_Bar]) -> str:
    if not bars:
        return ""
    ends = [end for bar in bars for end in (bar.figure.value, bar.figure.low, bar.figure.high) if end is not None]
    low, high = min(0.0, *ends), max(1.0, *ends) if max(ends) <= 1 else max(ends)
    scale = (_WIDTH - _LABEL - _VALUE) / ((high - low) or 1)

    def x(value: float) -> float:
        return round(_LABEL + (value - low) * scale, 1)

    height = _LINE * (len(bars) + 2)
    lines = [
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" font-size="13" fill="currentColor">',
        f"<title>{escape(metric)} with its intervals</title>",
        f'<text x="0" y="{_LINE - 7}" font-weight="bold">{escape(metric)}</text>',
    ]
    for at, bar in enumerate(bars, 1):
        middle = _LINE * at + _LINE / 2
        lines += _drawn(bar, middle, x)
    bottom = _LINE * (len(bars) + 1)
    lines += [
        f'<line x1="{x(low)}" y1="{bottom}" x2="{x(high)}" y2="{bottom}" stroke="currentColor" opacity=".4"/>',
        f'<text x="{x(low)}" y="{bottom + 15}" opacity=".65">{low:g}</text>',
        f'<text x="{x(high)}" y="{bottom + 15}" text-anchor="end" opacity=".65">{high:.4g}</text>',
        "</svg>",
    ]
    return "\n".join(lines)


def _drawn(bar: _Bar, y: float, place: Callable[[float], float]) -> list[str]:
    figure, weight = bar.figure, ' font-weight="bold"' if bar.whole else ""
    said = f"{figure.value:.4g}"
    drawn = [f'<text x="0" y="{y + 4}"{weight}>{escape(one_line(bar.label, 28))}</text>']
    if figure.low is not None and figure.high is not None:
        said += f" ({figure.low:.4g} to {figure.high:.4g})"
        ends = f'x1="{place(figure.low)}" x2="{place(figure.high)}" y1="{y}" y2="{y}"'
        drawn.append(f'<line {ends} stroke="#3a8fb7" stroke-width="3" stroke-linecap="round"/>')
    drawn.append(f'<circle cx="{place(figure.value or 0.0)}" cy="{y}" r="4.5" fill="#2a9d55"/>')
    drawn.append(f'<text x="{_WIDTH}" y="{y + 4}" text-anchor="end"{weight}>{said}</text>')
    return drawn


__all__ = ["scores_svg"]
