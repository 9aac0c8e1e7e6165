from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llmbatch.core.events import Replica
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Record, Status, Usage
from llmbatch.report.report import Facts, Report, SessionFacts, build_report, exit_code


def tokens(prompt: int, completion: int, cached: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}


def test_a_report_is_json_and_comes_back_as_it_was(report: Report) -> None:
    assert json.loads(json.dumps(report)) == report


def test_every_status_is_in_a_report_also_with_no_row(report: Report) -> None:
    assert report["rows"]["by_status"] == {"ok": 2, "invalid": 1, "truncated": 0, "failed": 1, "skipped": 0}


def test_the_tokens_of_a_report_are_useful_wasted_or_folded(report: Report) -> None:
    assert report["tokens"]["useful"] == tokens(100, 10, 50)
    assert report["tokens"]["wasted"] == tokens(160, 40, 0)
    assert report["tokens"]["folded"] == tokens(100, 10, 50)
    assert report["tokens"]["total"] == tokens(360, 60, 100)


def test_the_hit_rate_is_of_the_prompt_tokens_that_were_computed(report: Report) -> None:
    assert report["tokens"]["cache_hit_rate"] == 50 / 260


def test_a_failure_has_its_count_and_its_first_row(report: Report) -> None:
    assert report["failures"]["malformed_row"] == {"rows": 1, "index": 3, "id": 3, "message": "rows.jsonl:4: not JSON"}


def test_answers_sent_back_are_counted_by_kind_with_their_tokens(report: Report) -> None:
    assert report["sent_back"] == {"schema": {"answers": 2, "tokens": tokens(160, 40, 0)}}


def test_speed_is_over_the_time_after_the_engine_was_ready(report: Report) -> None:
    assert report["seconds"] == {"start_up": 10.0, "running": 20.0, "total": 30.0}
    assert report["speed"] == {"rows": 4 / 20, "prompt_tokens": 260 / 20, "completion_tokens": 50 / 20}


def test_the_idle_share_is_the_running_time_without_work(report: Report) -> None:
    assert report["sessions"][0]["idle_share"] == pytest.approx(0.25)


def test_where_it_is_known_how_long_an_engine_was_up_that_is_the_running_time(
    ledger: Ledger, session: SessionFacts, facts: Facts
) -> None:
    report = build_report(ledger, replace(session, ready_seconds=16.0), facts)
    assert report["seconds"] == {"start_up": 10.0, "running": 16.0, "total": 30.0}
    assert report["sessions"][0]["idle_share"] == pytest.approx(1 / 16)


def test_times_and_tokens_add_up_over_sessions(
    ledger: Ledger, session: SessionFacts, facts: Facts, report: Report
) -> None:
    second = replace(
        session, number=2, total_seconds=15.0, start_up_seconds=5.0, rows=0, engine_tokens=Usage(40, 10, 0)
    )
    both = build_report(ledger, second, facts, earlier=report["sessions"])
    assert [each["session"] for each in both["sessions"]] == [1, 2]
    assert both["seconds"] == {"start_up": 15.0, "running": 30.0, "total": 45.0}
    assert both["speed"] == {"rows": 4 / 30, "prompt_tokens": 300 / 30, "completion_tokens": 60 / 30}


def test_a_session_whose_engine_never_came_up_ran_for_no_time(
    ledger: Ledger, session: SessionFacts, facts: Facts
) -> None:
    broken = replace(session, outcome="broken", start_up_seconds=None, rows=0, engine_tokens=Usage())
    report = build_report(Ledger(), broken, facts, error="no memory")
    assert report["seconds"] == {"start_up": 30.0, "running": 0.0, "total": 30.0}
    assert report["speed"] == {"rows": None, "prompt_tokens": None, "completion_tokens": None}
    assert report["sessions"][0]["idle_share"] is None
    assert (report["error"], report["exit_code"]) == ("no memory", 1)


def test_the_exit_code_says_what_became_of_the_run(ledger: Ledger) -> None:
    fine = Ledger()
    fine.add(Record(0, 0, Status.OK))
    assert exit_code("finished", fine) == 0
    assert exit_code("finished", ledger) == 3
    assert exit_code("stopped", fine) == 130
    assert exit_code("broken", fine) == 1


def test_each_of_several_engines_has_its_share_and_one_alone_is_not_listed(
    ledger: Ledger, session: SessionFacts, facts: Facts
) -> None:
    assert "replicas" not in build_report(ledger, session, facts)["sessions"][0]
    two = (Replica(0, "up", 10.0, 9.0, Usage(100, 50, 40), 0), Replica(1, "left out", 0.0, 0.0, Usage(), 3))
    first, second = build_report(ledger, replace(session, replicas=two), facts)["sessions"][0]["replicas"]
    assert (first["busy_share"], first["cache_hit_rate"], first["speed"]["completion_tokens"]) == (0.9, 0.4, 5.0)
    assert (second["busy_share"], second["deaths"], second["left_out"]) == (None, 3, True)
