from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from llmbatch.core.events import Event, Finished, Note, Snapshot, Started
from llmbatch.core.ledger import WorstFailure
from llmbatch.watch.lines import LineLog


def lines_of(*events: Event) -> list[str]:
    stream = io.StringIO()
    log = LineLog(stream)
    for event in events:
        log(event)
    return [line[len("00:00:00 ") :] for line in stream.getvalue().splitlines()]


def at(snapshot: Snapshot, elapsed: float, rows: int) -> Snapshot:
    return replace(snapshot, elapsed=elapsed, rows=rows)


def test_each_thing_that_happened_is_a_line(events: list[Event]) -> None:
    lines = lines_of(*events)
    assert lines[0] == "run folder out/my run"
    assert lines[1] == "engine ready after 10 s: vllm 0.32 on cpu"
    assert lines[2] == "window 0: 43% of the prompt tokens will come from the cache"
    assert lines[3].startswith("1,204 of 10,000 rows (12%); invalid 12 · failed 12; 12 rows/s; ")
    assert lines[3].endswith("; in flight 256; about 42m left")
    assert lines[4] == "warning: the engine died [once]\\x1b[31m"
    assert lines[5:] == ["finished"]


def test_a_snapshot_is_a_line_when_half_a_minute_has_passed(snapshot: Snapshot) -> None:
    seconds = [1, 2, 29, 30, 31, 59, 60]
    lines = lines_of(*(at(snapshot, float(second), second) for second in seconds))
    assert [line.split()[0] for line in lines] == ["30", "60"]


def test_a_snapshot_is_a_line_when_a_tenth_of_the_rows_was_done(snapshot: Snapshot) -> None:
    rows = [500, 999, 1_000, 1_500, 2_000]
    lines = lines_of(*(at(snapshot, 1.0, done) for done in rows))
    assert [line.split()[0] for line in lines] == ["1,000", "2,000"]


def test_without_a_total_a_line_still_says_where_the_run_stands(snapshot: Snapshot) -> None:
    (line,) = lines_of(replace(snapshot, rows_total=None, seconds_left=None))
    assert line.startswith("1,204 rows; ")
    assert "left" not in line


def test_a_resumed_run_says_what_was_done_before() -> None:
    assert lines_of(Started(Path("out"), 500, 2)) == ["run folder out, session 2: 500 rows were done before"]


def test_an_info_note_needs_no_level() -> None:
    assert lines_of(Note("info", "hello"), Finished("stopped")) == ["hello", "stopped"]


def test_of_a_run_that_goes_on_already_the_first_line_comes_at_once(snapshot: Snapshot) -> None:
    stream = io.StringIO()
    log = LineLog(stream, at_once=True)
    for second in (1, 2, 31):
        log(at(snapshot, float(second), second))
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1", "31"]


def test_a_line_ends_with_the_worst_failure(snapshot: Snapshot) -> None:
    (line,) = lines_of(replace(snapshot, worst=WorstFailure("schema", 12, "c", "'age' is missing\nseen was {}")))
    assert line.endswith("; worst: schema 12, as at row 'c': 'age' is missing")
