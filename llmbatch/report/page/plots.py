"""Numbers in, plots out, as the templates draw them: shapes in SVG, whose places are shares of the plot, and words in HTML.

Drawn by hand. A library's plots would have to be 800 kB of script in every page (Vega), or as heavy a package in every environment
that a run is done in (matplotlib); they are pictures of fixed colours and sizes, where these take the page's colours, light or
dark, its width, and stay text for whoever reads with the ears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from llmbatch.core import words

WIDE, HIGH = 1000, 100  # of the coordinates that a stretched plot is drawn in
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
_BINS = 24

Say = Callable[[float], str]


class Tick(NamedTuple):
    """A label of an axis, ``at`` so many percent of it."""

    at: float
    text: str


class Shape(NamedTuple):
    """A filled area; ``kind`` is its colour's name in the style sheet, ``label`` what the legend calls it."""

    kind: str
    path: str
    label: str


class Mark(NamedTuple):
    """A line across the plot, ``at`` so many percent, with a word where it has room for one."""

    at: float
    kind: str
    label: str
    said: str


class Hover(NamedTuple):
    """What is said while the mouse is over a stretch of the plot; places in percent."""

    at: float
    width: float
    said: str


class Plot(NamedTuple):
    """Areas over an axis. ``said`` is the plot in a sentence, for whoever does not see it."""

    title: str
    said: str
    y: Sequence[Tick]
    x: Sequence[Tick]
    shapes: Sequence[Shape]
    hovers: Sequence[Hover] = ()
    marks: Sequence[Mark] = ()
    note: str = ""


class Dot(NamedTuple):
    """A figure with its interval, in percent of the axis; ``kind`` is its colour's name."""

    label: str
    said: str
    at: float | None
    low: float | None
    high: float | None
    kind: str = ""
    strong: bool = False


class Dots(NamedTuple):
    """Figures with intervals, one below the other, on one axis; ``lines`` are values to hold them against."""

    title: str
    said: str
    x: Sequence[Tick]
    dots: Sequence[Dot]
    lines: Sequence[Tick] = ()
    note: str = ""


class Lane(NamedTuple):
    """What one of several did over time: stretches in percent with how strong each is drawn, from 0 to 1."""

    label: str
    said: str
    stretches: Sequence[tuple[float, float, float]]
    marks: Sequence[Mark]


class Lanes(NamedTuple):
    title: str
    said: str
    x: Sequence[Tick]
    lanes: Sequence[Lane]


class Bar(NamedTuple):
    """A part of a whole: a share from 0 to 1 and what is said of it."""

    label: str
    kind: str
    share: float
    said: str


Drawn = tuple[str, float | None, float | None, float | None, str, str, bool]
"""A figure as it is to be drawn: label, value, low, high, what is said of it, kind, strong."""


def nice(most: float, parts: int = 4) -> float:
    """A round step (1, 2 or 5 times a power of ten) of which about so many make up ``most``."""
    if most <= 0:
        return 1.0
    rough = most / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def scale(most: float, say: Say) -> tuple[float, list[Tick]]:
    """(the top of an axis from 0 that ``most`` fits on, its ticks)."""
    step = nice(most)
    number = max(1, math.ceil(most / step - 1e-9))
    return step * number, [Tick(100 * at / number, say(step * at)) for at in range(number + 1)]


def time_scale(seconds: float) -> list[Tick]:
    """The ticks of an axis of so many seconds, at round times."""
    fits = [step for step in _STEPS if seconds / step <= 6]
    step = fits[0] if fits else 86_400 * math.ceil(seconds / 86_400 / 6)
    return [Tick(100 * at * step / seconds, clock(at * step)) for at in range(int(seconds / step) + 1)]


def clock(seconds: float) -> str:
    """``0``, ``30 s``, ``1.5 min``, ``2 h``, ``3 d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and (unit != "d" or seconds >= 2 * size):
            return f"{round(seconds / size, 2):g} {unit}"
    return f"{round(seconds, 1):g} s" if seconds else "0"


def short(number: float) -> str:
    """``950``, ``12k``, ``3.4M``: for the labels of an axis."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def steps(widths: Sequence[tuple[float, float]], low: Sequence[float], high: Sequence[float], top: float) -> str:
    """The path of an area between two heights for each stretch (from, to, as shares of the width), with upright steps."""
    up = [f"L{_x(a)} {_y(v, top)}L{_x(b)} {_y(v, top)}" for (a, b), v in zip(widths, high, strict=True)]
    down = [f"L{_x(b)} {_y(v, top)}L{_x(a)} {_y(v, top)}" for (a, b), v in zip(widths, low, strict=True)]
    return "M" + "".join([*up, *reversed(down)])[1:] + "Z" if up else ""


def slopes(places: Sequence[float], low: Sequence[float], high: Sequence[float], top: float) -> str:
    """The path of an area between two lines; places are shares of the width."""
    up = [f"{_x(at)} {_y(v, top)}" for at, v in zip(places, high, strict=True)]
    down = [f"{_x(at)} {_y(v, top)}" for at, v in zip(places, low, strict=True)]
    return "M" + "L".join([*up, *reversed(down)]) + "Z" if up else ""


def _x(share: float) -> str:
    return f"{round(share * WIDE, 1):g}"


def _y(value: float, top: float) -> str:
    return f"{round(HIGH * (1 - min(1.0, value / top if top else 0.0)), 1):g}"


def histogram(title: str, values: Sequence[int], what: str, kind: str) -> Plot | None:
    """How often which length occurs; the longest 0.5% share the last bar, where they would flatten all others."""
    if not values:
        return None
    ordered = sorted(values)
    number, longest = len(ordered), ordered[-1]
    usual = ordered[min(number - 1, int(number * 0.995))]
    end = longest if longest <= 1.5 * usual else usual
    step = max(1, round(nice(end + 1, _BINS)))
    bins = end // step + 1
    counts = [0] * (bins + (end < longest))
    for value in values:
        counts[min(value // step, len(counts) - 1)] += 1
    top, y = scale(max(counts), short)
    width = 100 / len(counts)
    shapes, hovers = [], []
    for at, rows in enumerate(counts):
        first, last = at * step, (at + 1) * step - 1
        span = f"{bins * step} or more" if at == bins else f"{first}" if first == last else f"{first} to {last}"
        hovers.append(Hover(round(at * width, 3), round(width, 3), f"{span} tokens: {words.count(rows)} {what}"))
        if rows:
            gap = 0.06 * width / 100
            shapes.append(steps([(at * width / 100 + gap, (at + 1) * width / 100 - gap)], [0], [rows], top))
    marked = max(1, math.ceil(bins / 6))
    x = [
        Tick(round(at * width, 2), short(at * step))
        for at in range(0, bins + 1, marked)
        if at < len(counts) or at == bins
    ]
    middle, late = ordered[(number - 1) // 2], ordered[min(number - 1, int(number * 0.95))]
    said = f"median {words.count(middle)}, 95% up to {words.count(late)}, longest {words.count(longest)} tokens"
    return Plot(title, said, y, x, [Shape(kind, "".join(shapes), what)], hovers)


def dots(title: str, figures: Iterable[Drawn], *,
         span: tuple[float, float], say: Say, lines: Sequence[tuple[float, str]] = (), note: str = "") -> Dots:  # fmt: skip
    """Figures on one axis that has all of ``span`` and of them."""
    figures = list(figures)
    ends = [end for figure in figures for end in figure[1:4] if end is not None]
    low, high = min([span[0], *ends]), max([span[1], *ends])
    step = nice(high - low)
    low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    wide = (high - low) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / wide, 2)

    drawn = [
        Dot(label, said, place(v), place(a), place(b), kind, strong) for label, v, a, b, said, kind, strong in figures
    ]
    x = [Tick(place(low + step * at) or 0.0, say(low + step * at)) for at in range(round(wide / step) + 1)]
    against = [Tick(place(value) or 0.0, text) for value, text in lines]
    said = "; ".join(f"{dot.label} {dot.said}" for dot in drawn[:20])
    return Dots(title, said, x, drawn, against, note)


__all__ = [
    "Bar", "Dot", "Dots", "Drawn", "Hover", "Lane", "Lanes", "Mark", "Plot", "Shape", "Tick", "clock", "dots", "histogram", "nice",
    "scale", "short", "slopes", "steps", "time_scale",
]  # fmt: skip
