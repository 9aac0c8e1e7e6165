from __future__ import annotations

import pytest

from llmbatch.report.page.plots import clock, dots, histogram, nice, scale, short, steps, time_scale


@pytest.mark.parametrize("most", [0.003, 1, 7, 99, 100, 101, 12_345, 1e9])
def test_an_axis_has_all_of_its_values_and_few_round_ticks(most: float) -> None:
    top, ticks = scale(most, lambda value: f"{value:g}")
    assert top >= most
    assert 2 <= len(ticks) <= 6
    assert (ticks[0].at, ticks[-1].at) == (0, 100)
    step = nice(most)
    assert float(f"{step:.0e}") == pytest.approx(step)


@pytest.mark.parametrize("seconds", [0.4, 3, 61, 4000, 90_000, 5_000_000])
def test_a_time_axis_has_few_ticks_at_round_times_within_it(seconds: float) -> None:
    ticks = time_scale(seconds)
    assert 1 <= len(ticks) <= 8
    assert all(0 <= tick.at <= 100.0001 for tick in ticks)
    assert ticks[0].text == "0"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0"), (30, "30 s"), (90, "1.5 min"), (7200, "2 h"), (90_000, "25 h"), (259_200, "3 d")],
    ids=str,
)
def test_times_are_said_shortly(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.parametrize(("number", "said"), [(0, "0"), (950, "950"), (12_000, "12k"), (3_400_000, "3.4M")], ids=str)
def test_numbers_are_said_shortly(number: float, said: str) -> None:
    assert short(number) == said


def counted(plot: object) -> int:
    return sum(int(over.said.split(": ")[1].split()[0].replace(",", "")) for over in plot.hovers)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "values",
    [[5], [0, 0, 0], list(range(1000)), [10] * 999 + [100_000], [1, 10_000_000]],
    ids=["one", "zeros", "even", "one far out", "two far apart"],
)
def test_a_histogram_has_every_value_in_one_of_few_bars(values: list[int]) -> None:
    plot = histogram("Prompts", values, "rows", "in")
    assert plot is not None
    assert counted(plot) == len(values)
    assert len(plot.hovers) <= 60
    assert "longest" in plot.said


def test_a_histogram_of_nothing_is_none() -> None:
    assert histogram("Prompts", [], "rows", "in") is None


def test_the_far_end_shares_a_bar_so_that_the_rest_can_be_seen() -> None:
    plot = histogram("Prompts", [*range(1000), 1_000_000], "rows", "in")
    assert plot is not None
    assert plot.hovers[-1].said.endswith("or more tokens: 1 rows")
    assert len(plot.hovers) > 10


def test_an_area_begins_and_ends_at_its_lower_line() -> None:
    assert steps([(0, 0.5), (0.5, 1)], [0, 0], [1, 2], 2) == "M0 50L500 50L500 0L1000 0L1000 100L500 100L500 100L0 100Z"
    assert steps([], [], [], 1) == ""


def test_figures_and_what_they_are_held_against_are_on_one_axis() -> None:
    plot = dots("t", [("a", 0.5, 0.4, 0.6, "0.5", "in", True), ("b", None, None, None, "-", "in", False)],
                span=(0, 1), say=str, lines=[(0.25, "luck")])  # fmt: skip
    assert (plot.dots[0].low, plot.dots[0].at, plot.dots[0].high) == (40, 50, 60)
    assert plot.dots[1].at is None
    assert plot.lines[0].at == 25
    assert "a 0.5" in plot.said
