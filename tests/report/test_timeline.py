"""What a run did over time: bounded, nothing lost, gone on with by the next session."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.events import Replica, Snapshot
from llmbatch.core.types import Usage
from llmbatch.report.timeline import BUCKETS, COLUMNS, Timeline


@pytest.fixture
def at(snapshot: Snapshot) -> Any:
    """A snapshot at a second of a session: ten rows, a hundred prompt and twenty answer tokens in each."""

    def made(elapsed: float, before: int = 0, **changes: Any) -> Snapshot:
        done = before + round(10 * elapsed)
        usage = Usage(round(100 * elapsed), round(20 * elapsed), round(50 * elapsed))
        told = replace(
            snapshot, elapsed=elapsed, rows=done, usage=usage, by_status={"ok": done}, attempts_retried=0,
            ready_seconds=max(0.0, elapsed - 1), busy_seconds=max(0.0, elapsed - 1) / 2,
        )  # fmt: skip
        return replace(told, **changes)

    return made


def grown(at: Any, seconds: int, step: float = 0.5) -> Timeline:
    timeline = Timeline()
    timeline.began(1, 0)
    for tick in range(int(seconds / step) + 1):
        timeline.snapshot(at(tick * step))
    return timeline


@pytest.mark.parametrize("seconds", [3, 130, 5000])
def test_it_has_no_more_buckets_than_that_and_loses_nothing_however_long_the_run(at: Any, seconds: int) -> None:
    timeline = grown(at, seconds)
    assert all(len(values) <= BUCKETS + 1 for values in timeline.columns.values())
    assert sum(timeline.columns["rows"]) == pytest.approx(10 * seconds)
    assert sum(timeline.columns["prompt_tokens"]) == pytest.approx(100 * seconds)
    assert sum(timeline.columns["busy"]) == pytest.approx((seconds - 1) / 2)
    assert timeline.seconds == seconds


def test_what_comes_in_a_long_step_is_spread_over_it(at: Any) -> None:
    timeline = Timeline()
    timeline.began(1, 0)
    timeline.snapshot(at(0.0))
    timeline.snapshot(at(10.0))
    assert timeline.columns["rows"][:20] == pytest.approx([5.0] * 20)


def test_it_is_the_same_after_it_was_written_and_read(at: Any) -> None:
    timeline = grown(at, 20)
    again = Timeline.from_dict(json.loads(json.dumps(timeline.as_dict())))
    assert again.as_dict() == timeline.as_dict()
    assert len(json.dumps(grown(at, 5000).as_dict())) < 30_000


def test_the_next_session_goes_on_behind_the_one_before(at: Any) -> None:
    timeline = Timeline.from_dict(json.loads(json.dumps(grown(at, 20).as_dict())))
    timeline.began(2, 200)
    timeline.snapshot(at(0.0, before=200))
    timeline.snapshot(at(5.0, before=200))
    timeline.ended("finished")
    assert [(each.at, each.rows, each.outcome) for each in timeline.sessions] == [
        (0.0, 0, None),
        (20.0, 200, "finished"),
    ]
    assert timeline.seconds == 25.0
    assert sum(timeline.columns["rows"]) == pytest.approx(250)
    assert timeline.sessions[0].ready_at == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("rows", [150, 200, 230])
def test_rows_that_a_kill_took_do_not_count_and_those_that_it_left_uncounted_do(at: Any, rows: int) -> None:
    timeline = grown(at, 20)
    timeline.began(2, rows)
    timeline.snapshot(at(0.0, before=rows))
    timeline.snapshot(at(5.0, before=rows))
    assert sum(timeline.columns["rows"]) == pytest.approx(rows + 50)
    assert min(timeline.columns["rows"]) >= 0


def test_a_death_is_in_one_bucket_and_each_of_several_engines_has_a_lane(at: Any) -> None:
    timeline = Timeline()
    timeline.began(1, 0)
    timeline.snapshot(at(0.0))
    engines = (Replica(0, "up", 5.0, 4.0, Usage(0, 60, 0), 0), Replica(1, "starting", 2.0, 1.0, Usage(0, 40, 0), 1))
    timeline.snapshot(at(5.0, replicas=engines, deaths=1))
    assert [value for value in timeline.columns["deaths"] if value] == [1.0]
    assert sum(timeline.lanes[0]["busy"]) == pytest.approx(4.0)
    assert sum(timeline.lanes[1]["up"]) == pytest.approx(2.0)
    assert sum(timeline.lanes[1]["deaths"]) == 1.0


@pytest.mark.parametrize(
    "damage",
    [{"llmbatch_timeline": 99}, {"buckets": {}}, {"sessions": [{}]}, {"seconds": "x"}, {"replicas": [1]}],
    ids=["newer", "no buckets", "half a session", "no number", "a list"],
)
def test_what_is_no_timeline_is_refused(at: Any, damage: dict[str, Any]) -> None:
    data = {**grown(at, 3).as_dict(), **damage}
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Timeline.from_dict(data)


def test_many_sessions_are_not_all_kept(at: Any) -> None:
    timeline = Timeline()
    for session in range(1, 500):
        timeline.began(session, 0)
        timeline.snapshot(at(0.5))
    assert len(timeline.sessions) <= 100
    assert (timeline.sessions[0].session, timeline.sessions[-1].session) == (1, 499)
    assert set(timeline.columns) == set(COLUMNS)
