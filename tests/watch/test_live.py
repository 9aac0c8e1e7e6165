from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from llmbatch.core.events import EngineReady, Event, Note, Replica, Snapshot
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage
from llmbatch.watch.live import LiveView


def drawn(*events: Event, width: int = 100) -> str:
    """What the view shows after these events; the view itself is not on a screen."""
    console = Console(file=io.StringIO(), width=width)
    view = LiveView(console)
    for event in events:
        view(event)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_before_the_engine_is_ready_the_view_says_so() -> None:
    assert "starting the engine" in drawn()


def test_the_view_shows_where_the_run_stands(snapshot: Snapshot) -> None:
    view = drawn(EngineReady(1.0, "vllm 0.32 on cpu"), snapshot)
    assert "vllm 0.32 on cpu" in view
    assert "1,204 of 10,000 rows (12%), about 42m left" in view
    assert "ok 1,180 · invalid 12 · failed 12" in view
    assert "schema 12 · malformed_row 12" in view
    assert "12,345 tokens/s in · 3,210 tokens/s out · 70% cached" in view
    assert "256 in flight · 3,100 waiting · idle 0.4% · 3 windows open" in view


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 200])
def test_no_line_of_the_view_is_wider_than_the_terminal(events: list[Event], width: int) -> None:
    for end in range(1, len(events) + 1):
        assert all(len(line) <= width for line in drawn(*events[:end], width=width).splitlines())


def test_on_a_narrow_terminal_a_figure_is_cut_and_its_name_is_not(snapshot: Snapshot) -> None:
    view = drawn(snapshot, width=40)
    assert "sent back" in view
    assert len(view.splitlines()) == len(drawn(snapshot, width=200).splitlines())


def test_a_snapshot_of_nothing_yet_can_be_drawn(snapshot: Snapshot) -> None:
    nothing = replace(
        snapshot,
        rows=0,
        rows_total=None,
        by_status={},
        by_failure={},
        usage=Usage(),
        seconds_left=None,
        attempts_retried=0,
    )
    assert "0 rows" in drawn(nothing)


def test_more_rows_than_estimated_are_not_more_than_all(snapshot: Snapshot) -> None:
    assert "(100%)" in drawn(replace(snapshot, rows=11_000))


def test_a_warning_stays_on_the_screen_and_cannot_drive_it(events: list[Event]) -> None:
    stream = io.StringIO()
    with LiveView(Console(file=stream, force_terminal=True, width=80)) as view:
        for event in events:
            view(event)
    assert "warning: the engine died [once]\\x1b[31m" in stream.getvalue()


def test_what_is_said_before_the_start_stays_on_the_screen() -> None:
    stream = io.StringIO()
    with LiveView(Console(file=stream, force_terminal=True, width=80)) as view:
        view(Note("info", "nothing is left to do"))
    assert "nothing is left to do" in stream.getvalue()


def test_the_cursor_is_back_after_an_error_in_the_run(snapshot: Snapshot) -> None:
    stream = io.StringIO()

    def run() -> None:
        with LiveView(Console(file=stream, force_terminal=True, width=80)) as view:
            view(snapshot)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_each_of_several_engines_has_a_line_and_one_alone_has_none(snapshot: Snapshot) -> None:
    two = (
        Replica(0, "up", 10.0, 9.7, Usage(12_400, 3_200, 6_200), 0),
        Replica(1, "left out", 5.0, 5.0, Usage(100, 10), 2),
    )
    said = drawn(replace(snapshot, replicas=two), width=200)
    assert "replica 0  busy 97% · 1,240 tokens/s in · 320 tokens/s out · 50% cached" in said
    assert "replica 1  left out · busy 100%" in said and "2 deaths" in said
    assert "replica" not in drawn(snapshot)


def test_of_many_engines_a_few_are_shown(snapshot: Snapshot) -> None:
    many = tuple(Replica(number, "starting", 0.0, 0.0, Usage(), 0) for number in range(64))
    said = drawn(replace(snapshot, replicas=many))
    assert said.count("starting\n") + said.count("starting ") >= 8 and "replica 8" not in said
    assert "and 56 more, see report.json" in said


def test_the_worst_failure_is_shown_with_an_example_on_one_line(snapshot: Snapshot) -> None:
    bad = replace(snapshot, worst=WorstFailure("schema", 1200, "c", "'age' is missing\x1b[31m\nseen was {}"))
    said = drawn(bad, width=200)
    assert "worst      schema 1,200, as at row 'c': 'age' is missing\\x1b[31m" in said
    assert "seen was" not in said
    assert "worst" not in drawn(snapshot)


def test_a_row_that_the_message_names_already_is_not_named_twice(snapshot: Snapshot) -> None:
    bad = replace(snapshot, worst=WorstFailure("prompt", 1, 7, "row 7: the variable 'a' is null"))
    assert "prompt 1, as at row 7: the variable 'a' is null" in drawn(bad, width=200)
