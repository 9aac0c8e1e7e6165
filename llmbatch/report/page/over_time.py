"""A run's timeline in; what it did over time out, as plots that share an axis, as lanes of its engines, and as a table."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from llmbatch.core import words
from llmbatch.report.page.plots import (
    Hover,
    Lane,
    Lanes,
    Mark,
    Plot,
    Shape,
    Tick,
    clock,
    scale,
    short,
    slopes,
    steps,
    time_scale,
)
from llmbatch.report.page.story import money
from llmbatch.report.timeline import Columns, Timeline

_STRETCHES = 120  # of a plot
_ROWS = 24  # of the table


class OverTime(NamedTuple):
    plots: Sequence[Plot]
    lanes: Lanes | None
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


class Cost(NamedTuple):
    """What a run cost, and by which prices: those of a million tokens (in, out, cached in), and whether hours of GPUs have one."""

    total: float
    per_million: tuple[float, float, float] | None
    hourly: bool


class _Stretch(NamedTuple):
    """Some buckets together; ``start`` and ``end`` in seconds, the rest as in ``COLUMNS``."""

    start: float
    end: float
    sums: dict[str, float]

    def rate(self, name: str) -> float:
        return self.sums[name] / max(1e-9, self.end - self.start)

    @property
    def busy(self) -> float:
        return min(1.0, self.sums["busy"] / self.sums["up"]) if self.sums["up"] > 0 else 0.0


def over_time(timeline: Timeline, cost: Cost | None = None) -> OverTime | None:
    """None where it was over too soon to be drawn."""
    number = len(timeline.columns["rows"])
    if number < 3 or timeline.seconds <= 0 or not timeline.sessions:
        return None
    stretches = _stretches(timeline, timeline.columns, _STRETCHES)
    x, marks = time_scale(timeline.seconds), _marks(timeline)
    plots = [_rows_done(timeline, stretches, x, marks)]
    if any(each.sums["prompt_tokens"] or each.sums["completion_tokens"] for each in stretches):
        plots += [_prompt_rate(timeline, stretches, x, marks), _answer_rate(timeline, stretches, x, marks)]
    if any(each.sums["up"] for each in stretches):
        plots.append(_engine(timeline, stretches, x, marks))
    if cost is not None and cost.total > 0:
        plots.append(_cost_so_far(timeline, stretches, x, marks, cost))
    headings, rows = _table(timeline)
    note = (
        "Time runs while the run does: the pauses between its sessions are left out."
        if len(timeline.sessions) > 1
        else ""
    )
    return OverTime(plots, _lanes(timeline, x), headings, rows, note)


def _stretches(timeline: Timeline, columns: Columns, most: int) -> list[_Stretch]:
    number = max((len(values) for values in columns.values()), default=0)
    each = -(-number // most)
    found: list[_Stretch] = []
    for at in range(0, number, each):
        sums = {name: sum(values[at : at + each]) for name, values in columns.items()}
        end = min((at + each) * timeline.width, timeline.seconds)
        if end - at * timeline.width > each * timeline.width / 2 or not found:
            found.append(_Stretch(at * timeline.width, end, sums))
        else:  # too short at the very end for a rate of its own
            last = found[-1]
            found[-1] = last._replace(end=end, sums={name: last.sums[name] + value for name, value in sums.items()})
    return found


def _marks(timeline: Timeline) -> list[Mark]:
    marks = []
    for each in timeline.sessions:
        began = datetime.datetime.fromtimestamp(each.started).astimezone().strftime("%Y-%m-%d %H:%M")
        at = 100 * each.at / timeline.seconds
        said = f"session {each.session} began {began}; it {_ended(each.outcome)}"
        if len(timeline.sessions) > 1:
            marks.append(Mark(round(at, 2), "session", f"session {each.session}", said))
        if each.ready_at is not None and each.ready_at - each.at > 0.01 * timeline.seconds:
            took = clock(round(each.ready_at - each.at, 1))
            marks.append(
                Mark(round(100 * each.ready_at / timeline.seconds, 2), "ready", "", f"engine ready after {took}")
            )
    for at, deaths in enumerate(timeline.columns["deaths"]):
        if deaths:
            place = min(100.0, 100 * (at + 0.5) * timeline.width / timeline.seconds)
            said = f"{words.count(deaths)} {'death' if deaths == 1 else 'deaths'} of an engine"
            marks.append(Mark(round(place, 2), "death", "engine died", said))
    return marks


def _ended(outcome: str | None) -> str:
    return "was killed, or goes on" if outcome is None else outcome if outcome == "finished" else f"ended {outcome}"


def _rows_done(timeline: Timeline, stretches: list[_Stretch], x: Sequence[Tick], marks: Sequence[Mark]) -> Plot:
    done, bad = float(timeline.sessions[0].rows), 0.0
    places, all_, not_ok, hovers = [0.0], [done], [0.0], []
    for each in stretches:
        done, bad = done + each.sums["rows"], bad + each.sums["not_ok"]
        places.append(each.end / timeline.seconds)
        all_.append(done)
        not_ok.append(bad)
        said = f"{clock(round(each.end, 1))}: {words.count(round(done))} rows done, {words.count(round(bad))} not ok"
        hovers.append(_hover(timeline, each, said))
    top, y = scale(max(1.0, all_[-1]), short)
    shapes = [Shape("ok", slopes(places, not_ok, all_, top), "ok")]
    if bad >= 0.5:
        shapes.append(Shape("bad", slopes(places, [0.0] * len(places), not_ok, top), "not ok"))
    said = f"{words.count(round(all_[-1]))} rows after {clock(round(timeline.seconds, 1))}"
    return Plot("Rows done", said, y, x, shapes, hovers, marks)


def _prompt_rate(timeline: Timeline, stretches: list[_Stretch], x: Sequence[Tick], marks: Sequence[Mark]) -> Plot:
    computed = [max(0.0, each.rate("prompt_tokens") - each.rate("cached_tokens")) for each in stretches]
    whole = [max(each.rate("prompt_tokens"), part) for each, part in zip(stretches, computed, strict=True)]
    top, y = scale(max(1.0, *whole), short)
    widths, nothing = _widths(timeline, stretches), [0.0] * len(stretches)
    shapes = [Shape("in", steps(widths, nothing, computed, top), "computed")]
    if any(each.sums["cached_tokens"] for each in stretches):
        shapes.append(Shape("cached", steps(widths, computed, whole, top), "from the prefix cache"))
    hovers = [
        _hover(
            timeline,
            each,
            f"{short(each.rate('prompt_tokens'))} prompt tokens/s, {short(each.rate('cached_tokens'))} cached",
        )
        for each in stretches
    ]
    return Plot("Prompt tokens per second", f"at most {short(max(whole))}", y, x, shapes, hovers, marks)


def _answer_rate(timeline: Timeline, stretches: list[_Stretch], x: Sequence[Tick], marks: Sequence[Mark]) -> Plot:
    rates = [each.rate("completion_tokens") for each in stretches]
    top, y = scale(max(1.0, *rates), short)
    shape = Shape("out", steps(_widths(timeline, stretches), [0.0] * len(rates), rates, top), "answer tokens")
    hovers = [
        _hover(timeline, each, f"{short(rate)} answer tokens/s") for each, rate in zip(stretches, rates, strict=True)
    ]
    return Plot("Answer tokens per second", f"at most {short(max(rates))}", y, x, [shape], hovers, marks)


def _engine(timeline: Timeline, stretches: list[_Stretch], x: Sequence[Tick], marks: Sequence[Mark]) -> Plot:
    shares = [each.busy for each in stretches]
    y = [Tick(at, f"{at}%") for at in (0, 50, 100)]
    shape = Shape("busy", steps(_widths(timeline, stretches), [0.0] * len(shares), shares, 1.0), "busy")
    hovers = [_hover(timeline, each, f"engine busy {words.share(each.busy)}") for each in stretches]
    up = sum(each.sums["up"] for each in stretches)
    busy = min(1.0, sum(each.sums["busy"] for each in stretches) / up)
    said = f"engines that were up had work for {words.share(busy)} of the time"
    return Plot("Engine busy", said, y, x, [shape], hovers, marks)


def _cost_so_far(
    timeline: Timeline, stretches: list[_Stretch], x: Sequence[Tick], marks: Sequence[Mark], cost: Cost
) -> Plot:
    spent, good = 0.0, float(timeline.sessions[0].rows)
    places, so_far, hovers = [0.0], [0.0], []
    for each, part in zip(stretches, _costs(stretches, cost), strict=True):
        spent, good = spent + part, good + each.sums["rows"] - each.sums["not_ok"]
        places.append(each.end / timeline.seconds)
        so_far.append(spent)
        by_row = f", {money(spent / good)} per row that is ok" if good >= 0.5 else ""
        hovers.append(_hover(timeline, each, f"{clock(round(each.end, 1))}: {money(spent)} so far{by_row}"))
    top, y = scale(spent, money)
    said = f"{money(spent)}{f', {money(spent / good)} per row that is ok' if good >= 0.5 else ''}"
    return Plot(
        "Cost so far",
        said,
        y,
        x,
        [Shape("busy", slopes(places, [0.0] * len(places), so_far, top), "cost")],
        hovers,
        marks,
    )


def _costs(stretches: list[_Stretch], cost: Cost) -> list[float]:
    """What each stretch cost. Tokens have their price, and hours of GPUs, which are paid for whatever they do, the rest."""
    into, out, cached = cost.per_million or (0.0, 0.0, 0.0)
    parts = [
        (
            max(0.0, each.sums["prompt_tokens"] - each.sums["cached_tokens"]) * into
            + each.sums["completion_tokens"] * out
            + each.sums["cached_tokens"] * cached
        )
        / 1e6
        for each in stretches
    ]
    if cost.hourly:
        rest = max(0.0, cost.total - sum(parts)) / (stretches[-1].end - stretches[0].start)
        parts = [part + rest * (each.end - each.start) for part, each in zip(parts, stretches, strict=True)]
    known = sum(parts)  # a kill took some counts, of tokens that were paid for
    return [part * cost.total / known if known else cost.total / len(parts) for part in parts]


def _widths(timeline: Timeline, stretches: list[_Stretch]) -> list[tuple[float, float]]:
    return [(each.start / timeline.seconds, each.end / timeline.seconds) for each in stretches]


def _hover(timeline: Timeline, each: _Stretch, said: str) -> Hover:
    at = 100 * each.start / timeline.seconds
    span = f"{clock(round(each.start, 1))} to {clock(round(each.end, 1))}: "
    said = said if ": " in said else span + said
    return Hover(round(at, 3), round(100 * each.end / timeline.seconds - at, 3), said)


def _lanes(timeline: Timeline, x: Sequence[Tick]) -> Lanes | None:
    if not timeline.lanes:
        return None
    lanes = []
    for number, columns in sorted(timeline.lanes.items()):
        stretches, marks = [], []
        for each in _stretches(timeline, columns, _STRETCHES):
            at, end = 100 * each.start / timeline.seconds, 100 * each.end / timeline.seconds
            if each.sums["up"] > 0:
                stretches.append((round(at, 3), round(end - at, 3), round(0.08 + 0.92 * each.busy, 2)))
            if each.sums["deaths"]:
                marks.append(Mark(round((at + end) / 2, 2), "death", "", f"replica {number} died"))
        up, busy = sum(columns["up"]), sum(columns["busy"])
        said = f"busy {words.share(min(1.0, busy / up))}" if up else "never up"
        if deaths := sum(columns["deaths"]):
            said += f", {words.count(deaths)} {'death' if deaths == 1 else 'deaths'}"
        lanes.append(Lane(f"replica {number}", said, stretches, marks))
    said = "; ".join(f"{lane.label} {lane.said}" for lane in lanes)
    return Lanes("Engines side by side: the stronger the colour, the busier", said, x, lanes)


def _table(timeline: Timeline) -> tuple[list[str], list[list[str]]]:
    headings = ["until", "rows", "not ok", "prompt tokens/s", "of them cached", "answer tokens/s", "busy", "deaths"]
    rows = [
        [
            clock(round(each.end, 1)),
            words.count(round(each.sums["rows"])),
            words.count(round(each.sums["not_ok"])),
            words.count(round(each.rate("prompt_tokens"))),
            words.count(round(each.rate("cached_tokens"))),
            words.count(round(each.rate("completion_tokens"))),
            words.share(each.busy) if each.sums["up"] else "–",
            words.count(round(each.sums["deaths"])),
        ]
        for each in _stretches(timeline, timeline.columns, _ROWS)
    ]
    return headings, rows


__all__ = ["Cost", "OverTime", "over_time"]
