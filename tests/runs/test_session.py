from __future__ import annotations

import gc
import gzip
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import (
    EngineError,
    FolderError,
    InputChanged,
    JobError,
    Locked,
    ReadError,
    RunError,
    TooManyFailures,
)
from llmbatch.core.events import EngineReady, Event, Finished, Sealed, Snapshot, Started
from llmbatch.core.types import Completion
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import open_session, run_job

EVEN_FAIL_ONCE = {"when": {"attempt": 1, "matches": "[02468]$"}, "answer": ""}
LOST = ["{not json", "[1, 2]", '"text"', "null", '{"id": "no text"}', '{"text": 7', '{"text": "\\ud800"}']


def text_rows(count: int, *, distinct: int | None = None) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % (distinct or count)}"} for i in range(count)]


def interrupt_when(condition: Callable[[Snapshot], bool]) -> Callable[[Event], None]:
    """A watcher that presses Ctrl-C, once, at the first snapshot that fulfils the condition."""
    pressed: list[Snapshot] = []

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and not pressed and condition(event):
            pressed.append(event)
            signal.raise_signal(signal.SIGINT)

    return watch


# One record for every line, in order


def test_every_line_ends_in_exactly_one_record_in_input_order(jobs: Any) -> None:
    lines = [line for pair in itertools.zip_longest(text_rows(20), LOST) for line in pair if line is not None]
    result = jobs.run(jobs.job(jobs.rows(lines), run={"window": 4}))
    records = jobs.records()
    assert [record["index"] for record in records] == list(range(len(lines)))
    assert [record["status"] for record in records] == ["ok" if isinstance(line, dict) else "failed" for line in lines]
    assert result.exit_code == 3


def test_rows_with_the_same_id_keep_their_own_records(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows([{"id": "same", "text": text} for text in ("a", "b", "a")])))
    assert [(record["id"], record["output"]) for record in jobs.records()] == [
        ("same", "a"),
        ("same", "b"),
        ("same", "a"),
    ]


@pytest.mark.parametrize(
    "run",
    [
        {"window": 1},
        {"window": 3, "windows_open": 1},
        {"window": 7, "windows_open": 2},
        {"window_characters": 40},
        {"window": 1000},
    ],
)
@pytest.mark.parametrize("order", ["input", "prefix", "longest"])
def test_the_bytes_do_not_depend_on_window_size_or_order(jobs: Any, run: dict[str, Any], order: str) -> None:
    rows = jobs.rows([*text_rows(40, distinct=29), *LOST])
    script = {"rules": [EVEN_FAIL_ONCE, {"when": {"contains": "7"}, "answer": "{text} and {text}"}], "latency": 0.001}
    limits = {"sampling": {"max_tokens": 12}}
    jobs.run(
        jobs.job(rows, script, output=str(jobs.path / "plain"), run={"window": 1000}, plan={"fold": False}, **limits)
    )
    jobs.run(jobs.job(rows, script, run=run, plan={"order": order}, **limits))
    assert jobs.results() == jobs.results("plain")


def test_blank_lines_are_no_rows(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows(["", *text_rows(2), "   "])))
    assert len(jobs.records()) == 2


# Folding, samples, retries


def test_duplicates_are_computed_once_and_each_gets_its_record(jobs: Any) -> None:
    result = jobs.run(jobs.job(jobs.rows(text_rows(30, distinct=3)), sinks={"keep": ("id",)}))
    records = jobs.records()
    assert [record["input"] for record in records] == [{"id": f"r{i}"} for i in range(30)]
    assert [record["output"] for record in records] == [f"text {i % 3}" for i in range(30)]
    assert result.report["rows"]["folded"] == 27
    computed = sum(record["usage"]["prompt_tokens"] for record in records[:3])
    assert result.report["sessions"][0]["tokens"]["prompt_tokens"] == computed


def test_duplicates_are_not_folded_where_the_seed_says_that_every_answer_is_drawn_anew(jobs: Any) -> None:
    result = jobs.run(jobs.job(jobs.rows(text_rows(4, distinct=1)), sampling={"temperature": 1, "seed": -1}))
    assert result.report["rows"]["folded"] == 0


def test_a_duplicate_of_a_row_that_fails_fails_like_it(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows(text_rows(4, distinct=2)), {"rules": [{"when": {"contains": "1"}, "answer": ""}]}))
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok", "invalid"] * 2
    assert records[1]["history"] == records[3]["history"]


def test_a_row_whose_retry_has_no_room_in_the_context_ends_with_what_was_wrong_with_its_answer(
    jobs: Any, ten: Path
) -> None:
    script = {"rules": [{"answer": "maybe"}], "context_length": 150}
    jobs.run(jobs.job(ten, script, answer={"choice": ["yes", "no"], "constrained": False}))
    for record in jobs.records():
        assert (record["status"], record["raw"], record["attempts"]) == ("invalid", "maybe", 1)
        assert record["error"]["kind"] == "choice"


def test_a_row_has_as_many_answers_as_it_asks_for(jobs: Any, ten: Path) -> None:
    script = {"rules": [{"when": {"index": 3, "attempt": 1}, "answer": ""}]}
    jobs.run(jobs.job(ten, script, sampling={"n": 3, "temperature": 1, "seed": 5}))
    records = jobs.records()
    assert [record["output"] for record in records] == [[f"text {i}"] * 3 for i in range(10)]
    assert [record["attempts"] for record in records] == [3, 3, 3, 6, 3, 3, 3, 3, 3, 3]


def test_equal_samples_of_one_row_are_all_answered(jobs: Any) -> None:
    """Folding concerns rows: the samples of one row, equal where sampling is greedy, must not wait for each other."""
    bodies = [
        {"model": "m", "messages": [{"role": "user", "content": "same"}], "n": n, "temperature": 0} for n in (2, 1, 3)
    ]
    rows = jobs.rows([{"custom_id": str(i), "method": "POST", "body": body} for i, body in enumerate(bodies)])
    jobs.run(jobs.job(rows, prompt=None, input={"path": str(rows), "format": "requests"}))
    assert [record["output"] for record in jobs.records()] == [["same"] * 2, "same", ["same"] * 3]


@pytest.mark.parametrize("setting", [{"bad_words": [5]}, {"seed": 2**70}, {"top_k": 2**40}, {"stop": [""]}], ids=str)
def test_a_request_with_a_setting_that_would_end_the_engine_fails_alone(jobs: Any, setting: dict[str, Any]) -> None:
    bodies = [{"model": "m", "messages": [{"role": "user", "content": "hi"}], **own} for own in ({}, setting, {})]
    rows = jobs.rows([{"custom_id": str(i), "method": "POST", "body": body} for i, body in enumerate(bodies)])
    jobs.run(jobs.job(rows, prompt=None, input={"path": str(rows), "format": "requests"}))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok"]
    assert f"body.{next(iter(setting))}" in jobs.records()[1]["error"]["message"]


@pytest.mark.parametrize(
    "setting", [{"bad_words": [5]}, {"seed": 2**63}, {"top_p": 0}, {"logit_bias": {"x": 1}}], ids=str
)
def test_a_job_with_a_setting_out_of_its_range_does_not_begin(jobs: Any, ten: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=rf"sampling\.{next(iter(setting))} "):
        jobs.run(jobs.job(ten, sampling=setting))
    assert not (jobs.path / "out").exists()


def test_rows_that_ask_for_different_outputs_do_not_share_an_answer(jobs: Any) -> None:
    def body(schema: dict[str, Any]) -> dict[str, Any]:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        return {"messages": [{"role": "user", "content": "7"}], "temperature": 0, "response_format": wanted}

    bodies = [body({"type": "integer"}), body({"type": "string"})]
    rows = jobs.rows([{"custom_id": str(i), "body": body} for i, body in enumerate(bodies)])
    answer = {"constrained": False}
    jobs.run(
        jobs.job(
            rows, prompt=None, input={"path": str(rows), "format": "requests"}, answer=answer, retry={"max_attempts": 1}
        )
    )
    assert [record["status"] for record in jobs.records()] == ["ok", "invalid"]


def test_a_retry_runs_beside_the_rows_that_wait_and_not_after_them(jobs: Any) -> None:
    """With one slot, all else being slow: the row that is sent back is finished before most of the others."""
    script = {"rules": [{"when": {"index": 0, "attempt": 1}, "answer": ""}], "concurrency": 1, "die_after": [5]}
    job = jobs.job(jobs.rows(text_rows(10)), script, engine={"restarts": 0})
    with pytest.raises(EngineError, match="died 1 times"):
        jobs.run(job)
    journal = (jobs.path / "out" / "parts" / "part-00000.journal").read_text()
    assert '"record":{"id":"r0"' in journal
    assert '"record":{"id":"r9"' not in journal


def test_every_attempt_and_its_tokens_are_in_the_record(jobs: Any, ten: Path) -> None:
    result = jobs.run(jobs.job(ten, {"rules": [EVEN_FAIL_ONCE]}))
    record = jobs.records()[2]
    assert [(attempt["attempt"], attempt["error"]["kind"]) for attempt in record["history"]] == [(1, "empty")]
    assert record["attempts"] == 2
    assert record["usage"]["prompt_tokens"] == 2 * record["usage"]["wasted"]["prompt_tokens"]
    assert result.report["rows"]["retried"] == 5


def test_the_engines_own_counts_are_those_of_the_records(jobs: Any) -> None:
    rows = jobs.rows(text_rows(50, distinct=40))
    result = jobs.run(jobs.job(rows, {"rules": [EVEN_FAIL_ONCE], "die_after": [20]}, sampling={"max_tokens": 5}))
    tokens = result.report["tokens"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert tokens["useful"][name] + tokens["wasted"][name] == result.report["sessions"][0]["tokens"][name]


# Stops, and going on


def test_an_interrupted_run_goes_on_to_the_same_bytes_and_computes_nothing_twice(jobs: Any) -> None:
    rows = jobs.rows(text_rows(200))
    script = {"latency": 0.02, "concurrency": 4, "rules": [EVEN_FAIL_ONCE]}
    job = jobs.job(rows, script, run={"window": 16, "windows_open": 3})
    first = jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows > 30))
    assert (first.outcome, first.exit_code) == ("stopped", 130)
    assert not (jobs.path / "out" / "results.jsonl").exists()
    second = jobs.run(job)
    jobs.run(job.model_copy(update={"output": jobs.path / "plain"}))
    assert jobs.results() == jobs.results("plain")
    spent = [session["tokens"]["prompt_tokens"] for session in second.report["sessions"]]
    assert sum(spent) == jobs.report("plain")["sessions"][0]["tokens"]["prompt_tokens"]
    assert min(spent) > 0


def test_what_is_in_flight_gets_its_grace_and_what_waits_is_not_sent(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(100)), {"latency": 0.3, "concurrency": 8}, run={"grace": 60})
    result = jobs.run(job, interrupt_when(lambda snapshot: snapshot.in_flight == 8))
    assert result.report["rows"]["done"] % 8 == 0
    assert 0 < result.report["rows"]["done"] < 100


def test_what_hangs_longer_than_the_grace_is_given_up(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, {"rules": [{"when": {"index": 4}, "hang": True}]}, run={"grace": 0})
    result = jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows == 9))
    assert (result.outcome, result.report["rows"]["done"]) == ("stopped", 9)


def test_a_second_interrupt_ends_the_run_at_once_and_loses_nothing(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, {"rules": [{"when": {"index": 4}, "hang": True, "times": 1}]}, run={"grace": 600})
    pressed: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows == 9:
            pressed.append(event.rows)
            signal.raise_signal(signal.SIGINT)

    result = jobs.run(job, watch)
    assert (result.outcome, result.exit_code, pressed) == ("stopped", 130, [9, 9])
    assert jobs.run(job).report["rows"]["done"] == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_engine_starts_ends_the_run_at_once(jobs: Any, ten: Path, number: int) -> None:
    threading.Timer(1.0, lambda: os.kill(os.getpid(), number)).start()
    result = jobs.run(jobs.job(ten, {"start_seconds": 600}))
    assert (result.outcome, result.exit_code) == ("stopped", 130)
    assert signal.Signals(number).name in result.report["error"]


def test_a_run_whose_caller_stops_iterating_can_be_gone_on_with(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(40)), run={"window": 4})
    with open_session(job) as session:
        windows = session.windows()
        next(windows)
        windows.close()
    assert jobs.report()["outcome"] == "stopped"
    jobs.run(job)
    assert [record["index"] for record in jobs.records()] == list(range(40))


def test_answers_that_were_sent_back_are_replayed_and_not_asked_again(jobs: Any, ten: Path) -> None:
    script = {"rules": [EVEN_FAIL_ONCE, {"when": {"attempt": 2}, "hang": True, "times": 5}]}
    job = jobs.job(ten, script, run={"grace": 0})
    jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows == 5 and snapshot.in_flight == 5))
    result = jobs.run(job)
    assert [record["attempts"] for record in jobs.records()] == [2, 1] * 5
    first, second = (session["tokens"]["prompt_tokens"] for session in result.report["sessions"])
    assert (first, second) == (2 * second, second)


def test_an_answer_that_was_cut_off_is_gone_on_from_after_an_interruption_as_without_one(jobs: Any, ten: Path) -> None:
    """What follows depends on the context length, which is known only once the engine is up again."""
    script = {"rules": [{"when": {"attempt": 2}, "hang": True, "times": 10}]}
    job = jobs.job(ten, script, run={"grace": 0}, sampling={"max_tokens": 4})
    jobs.run(
        job,
        interrupt_when(
            lambda snapshot: (
                snapshot.in_flight == 10 and snapshot.attempts_retried == 0 and snapshot.usage.prompt_tokens > 0
            )
        ),
    )
    result = jobs.run(job)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(10)]
    assert [record["attempts"] for record in jobs.records()] == [2] * 10
    assert result.exit_code == 0


def test_rows_done_counts_what_earlier_sessions_left(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, {"rules": [{"when": {"index": 7}, "hang": True, "times": 1}]}, run={"grace": 0, "window": 5})
    jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows == 9))
    jobs.run(job)
    started = [event for event in jobs.events if isinstance(event, Started)]
    assert [(event.rows_done, event.session) for event in started] == [(0, 1), (9, 2)]


def test_a_finished_run_does_nothing_and_says_so(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten)
    first = jobs.run(job)
    before = {path: path.stat().st_mtime_ns for path in (jobs.path / "out").rglob("*") if path.is_file()}
    jobs.events.clear()
    again = jobs.run(job)
    assert again.report == first.report
    assert {path: path.stat().st_mtime_ns for path in (jobs.path / "out").rglob("*") if path.is_file()} == before
    assert [type(event) for event in jobs.events if not isinstance(event, Finished)] == [type(jobs.events[0])]
    assert "nothing is left to do" in jobs.notes()[0]


def test_results_that_were_deleted_are_made_again_without_an_engine(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten)
    jobs.run(job)
    results = jobs.results()
    (jobs.path / "out" / "results.jsonl").unlink()
    jobs.events.clear()
    jobs.run(job)
    assert jobs.results() == results
    assert not any(isinstance(event, EngineReady) for event in jobs.events)


def test_rows_that_need_no_engine_start_none(jobs: Any) -> None:
    result = jobs.run(jobs.job(jobs.rows(LOST), {"start_seconds": 600}))
    assert result.report["rows"]["by_status"]["failed"] == len(LOST)
    assert not any(isinstance(event, EngineReady) for event in jobs.events)


def test_windows_are_sealed_while_the_run_goes_on(jobs: Any) -> None:
    job = jobs.job(
        jobs.rows(text_rows(40)), {"rules": [{"when": {"index": 39}, "hang": True}]}, run={"window": 10, "grace": 0}
    )
    jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows == 39))
    assert sorted(path.name for path in (jobs.path / "out" / "parts").glob("*.jsonl")) == [
        f"part-0000{i}.jsonl" for i in range(3)
    ]
    assert sum(isinstance(event, Sealed) for event in jobs.events) == 3


@pytest.mark.parametrize("full", [{"window": 10}, {"window_characters": 150}], ids=["by rows", "by characters"])
def test_the_windows_that_are_open_are_bounded_whatever_the_size_of_the_input(jobs: Any, full: dict[str, int]) -> None:
    script = {"rules": [{"hang": True}], "concurrency": 1000}
    job = jobs.job(jobs.rows(text_rows(2000)), script, run={**full, "windows_open": 3, "grace": 0})
    jobs.run(job, interrupt_when(lambda snapshot: snapshot.elapsed > 2))
    open_, ahead, being_read = 3, 2, 1
    assert max(event.windows_open for event in jobs.events if isinstance(event, Snapshot)) == open_
    assert len(list((jobs.path / "out" / "parts").glob("*.journal"))) <= open_ + ahead + being_read


def test_the_collector_is_calm_until_all_is_written_and_answers_that_were_kept_are_gone_by_then(
    jobs: Any, ten: Path
) -> None:
    before, seen = gc.get_threshold(), []

    def watch(event: Event) -> None:
        if isinstance(event, Finished):
            there = sum(isinstance(each, Completion) for each in gc.get_objects())
            seen.append((gc.get_threshold()[0], there))

    gc.collect()
    kept = sum(isinstance(each, Completion) for each in gc.get_objects())
    run_job(jobs.job(ten), [watch])
    assert seen == [(2_000_000, kept)]
    assert gc.get_threshold() == before


# Budgets


def test_too_many_failures_stop_the_run_early_and_a_higher_limit_goes_on(jobs: Any) -> None:
    rows = jobs.rows(text_rows(300))
    script = {"rules": [{"answer": ""}], "latency": 0.2, "concurrency": 20}
    job = jobs.job(rows, script, run={"max_failures": 10}, retry={"max_attempts": 1})
    with pytest.raises(TooManyFailures, match=r"max_failures=10 allows; most often empty, as at row 'r\d+'"):
        jobs.run(job)
    assert jobs.report()["outcome"] == "broken"
    assert jobs.report()["rows"]["done"] < 300
    result = jobs.run(job.model_copy(update={"run": job.run.model_copy(update={"max_failures": None})}))
    assert result.report["rows"]["by_status"]["invalid"] == 300


def test_too_many_failures_are_told_at_the_end_too(jobs: Any, ten: Path) -> None:
    """A run that is over before the clock is looked at again."""
    script = {"rules": [{"answer": ""}], "latency": 0.05}
    job = jobs.job(ten, script, run={"max_failures": 5}, retry={"max_attempts": 1})
    for _ in range(2):
        with pytest.raises(TooManyFailures, match="10 of 10 rows failed, more than max_failures=5 allows"):
            jobs.run(job)
    assert jobs.run(raised(job, max_failures=10)).report["rows"]["by_status"]["invalid"] == 10


def test_a_finished_run_whose_rows_were_tried_again_starts_no_engine(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, {"rules": [EVEN_FAIL_ONCE, {"when": {"contains": "3"}, "answer": "", "times": 3}]})
    jobs.run(job)
    assert retry_failed(jobs.path / "out", {}).exit_code == 0
    jobs.events.clear()
    assert jobs.run(job).report["rows"]["retried"] == 6
    assert "nothing is left to do" in jobs.notes()[0]
    assert not any(isinstance(event, EngineReady) for event in jobs.events)


def test_a_share_of_failures_counts_from_the_hundredth_row_on(jobs: Any) -> None:
    rows = jobs.rows(text_rows(90))
    job = jobs.job(rows, {"rules": [{"answer": ""}]}, run={"max_failures": "5%"}, retry={"max_attempts": 1})
    assert jobs.run(job).outcome == "finished"


def raised(job: Any, **budgets: Any) -> Any:
    return job.model_copy(update={"run": job.run.model_copy(update=budgets)})


def test_a_run_stops_when_its_time_is_over_and_a_higher_limit_goes_on(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(40)), {"latency": 0.1, "concurrency": 2}, run={"max_time": "0.5s"})
    result = jobs.run(job)
    assert (result.outcome, result.exit_code) == ("stopped", 130)
    assert "max_time of 0.5 s is over; to go on, raise --max-time" in result.report["error"]
    assert jobs.run(raised(job, max_time=None)).outcome == "finished"
    assert len(jobs.records()) == 40


def test_a_run_stops_when_its_tokens_are_spent(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(200)), {"latency": 0.1, "concurrency": 4}, run={"max_total_tokens": 100})
    result = jobs.run(job)
    assert (result.outcome, result.exit_code) == ("stopped", 130)
    assert "max_total_tokens of 100 is spent" in result.report["error"]
    assert 0 < result.report["rows"]["done"] < 200


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"max_total_tokens": 100}, "max_total_tokens of 100 is spent"),
        ({"max_time": 0.5}, "max_time of 0.5 s is over"),
        ({"max_cost": 1.0, "price_per_million": "1000,20000"}, "max_cost of 1 is spent"),
        ({"max_cost": 0.5, "price_per_gpu_hour": 3600}, "max_cost of 0.5 is spent"),
    ],
)
def test_a_budget_is_of_all_sessions_so_one_that_is_used_up_starts_no_engine(
    jobs: Any, budget: dict[str, Any], said: str
) -> None:
    job = jobs.job(jobs.rows(text_rows(200)), {"latency": 0.1, "concurrency": 20}, run=budget)
    first = jobs.run(job)
    assert first.outcome == "stopped"
    assert 0 < first.report["rows"]["done"] < 200
    jobs.events.clear()
    again = jobs.run(job)
    assert f"{said}, earlier sessions of this run counted" in again.report["error"]
    assert not any(isinstance(event, EngineReady) for event in jobs.events)
    assert again.report["rows"]["done"] == first.report["rows"]["done"]
    assert again.report["sessions"][-1]["rows"] == 0
    assert jobs.run(raised(job, max_time=None, max_total_tokens=None, max_cost=None)).outcome == "finished"


def test_a_used_up_budget_does_not_keep_finished_answers_from_becoming_results(jobs: Any) -> None:
    """Every row is answered, and the session was stopped before it could write the results: nothing is left to pay for."""
    job = jobs.job(jobs.rows(text_rows(20)), run={"max_total_tokens": 1})
    jobs.run(raised(job, max_total_tokens=None))
    (jobs.path / "out" / "results.jsonl").unlink()
    assert jobs.run(job).outcome == "finished"
    assert len(jobs.records()) == 20


# What must not change between two sessions


def stopped(jobs: Any, rows: Path, **sections: Any) -> Any:
    """A job of which all rows but the last are done."""
    last = sum(1 for _ in rows.open()) - 1
    script = {"rules": [{"when": {"index": last}, "hang": True, "times": 1}]}
    job = jobs.job(rows, script, **{**sections, "run": {"grace": 0, "window": 4, **sections.get("run", {})}})
    jobs.run(job, interrupt_when(lambda snapshot: snapshot.rows == last))
    return job


def test_a_changed_row_is_refused_naming_where(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    ten.write_text(ten.read_text().replace("text 5", "text X"))
    with pytest.raises(InputChanged, match="rows 4 to 7 differ"):
        jobs.run(job)


def test_a_shorter_input_is_refused(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    ten.write_text("".join(ten.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(InputChanged, match="differ"):
        jobs.run(job)


def test_a_grown_input_is_refused_and_extend_runs_the_new_rows(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    with ten.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in text_rows(13)[10:])
    with pytest.raises(InputChanged, match=r"had .* bytes, now .*--extend"):
        jobs.run(job)
    jobs.run(job, extend=True)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(13)]


def test_a_finished_run_can_be_extended_again_and_again(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, run={"window": 4})
    for count in (11, 15, 16):
        jobs.run(job, extend=True)
        with ten.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in text_rows(count)[len(jobs.records()) :])
    jobs.run(job, extend=True)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(16)]


def test_a_last_line_that_went_on_is_refused_even_with_extend(jobs: Any) -> None:
    rows = jobs.path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}')
    jobs.run(jobs.job(rows))
    with rows.open("a") as file:
        file.write(' \n{"text": "c"}\n')
    with pytest.raises(InputChanged, match="unfinished"):
        jobs.run(jobs.job(rows), extend=True)


def test_an_input_that_was_only_touched_is_the_same(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    ten.touch()
    assert jobs.run(job).report["rows"]["done"] == 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "another"}, "model was"),
        ({"prompt": {"path": "Say {{ text }}"}}, "prompt"),
        ({"sampling": {"temperature": 0, "max_tokens": 7}}, r"sampling\.max_tokens was .*, now 7"),
        ({"answer": {"choice": ["a"]}}, r"answer\.choice was not set"),
        ({"retry": {"max_attempts": 9}}, r"retry\.max_attempts was 3, now 9"),
    ],
)
def test_another_job_is_refused_naming_what_changed(jobs: Any, ten: Path, change: dict[str, Any], named: str) -> None:
    job = stopped(jobs, ten)
    other = jobs.job(ten, **change)
    other = other.model_copy(update={"engine": job.engine})
    with pytest.raises(FolderError, match=named):
        jobs.run(other)
    assert jobs.run(job).outcome == "finished"


@pytest.mark.parametrize(
    "change", [{"run": {"window": 2}}, {"plan": {"order": "longest"}}, {"engine": {"in_flight": 3}}]
)
def test_what_changes_only_the_speed_may_change_between_sessions(jobs: Any, ten: Path, change: dict[str, Any]) -> None:
    job = stopped(jobs, ten)
    script = job.engine.script
    jobs.run(jobs.job(ten, **{**change, "engine": {**change.get("engine", {}), "script": script}}))
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(10)]


def test_a_job_that_did_nothing_yet_may_be_corrected_in_its_folder(jobs: Any, ten: Path) -> None:
    with pytest.raises(RunError):
        jobs.run(jobs.job(ten, run={"rows": str(jobs.path / "missing")}))
    assert jobs.run(jobs.job(ten, prompt={"path": "Say {{ text }}"})).outcome == "finished"


# The folder


def test_a_second_run_on_the_folder_is_refused_naming_host_and_process(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten)
    with open_session(job), pytest.raises(Locked, match=f"process {os.getpid()} on {socket.gethostname()}"):
        jobs.run(job)


def test_a_killed_runs_folder_is_taken_over_with_a_note(jobs: Any, ten: Path) -> None:
    data = jobs.data(ten, {"rules": [{"when": {"index": 4}, "hang": True, "times": 1}]})
    process = jobs.start(data)
    wait_for(lambda: (jobs.path / "out" / "parts" / "part-00000.journal").exists())
    process.kill()
    process.wait()
    jobs.run(jobs.job(ten))
    assert f"process {process.pid} " in jobs.notes()[0]
    assert "is dead" in jobs.notes()[0]


def test_the_lock_is_given_back_when_the_folder_cannot_be_used(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten)
    jobs.run(job)
    manifest = jobs.path / "out" / "run.json"
    manifest.write_text(manifest.read_text().replace('"llmbatch_run": 1', '"llmbatch_run": 99'))
    with pytest.raises(FolderError, match="newer llmbatch"):
        jobs.run(job)
    assert not (jobs.path / "out" / "lock").exists()


def test_a_run_that_lost_its_folder_writes_nothing_more(jobs: Any, ten: Path) -> None:
    """Another run took the folder over while this one was stopped for long, as a laptop that was closed."""
    job = jobs.job(ten, {"latency": 1.0, "concurrency": 1}, run={"commit_seconds": 0.1})
    seen: dict[str, bytes] = {}

    def watch(event: Event) -> None:
        folder = jobs.path / "out"
        if isinstance(event, EngineReady):
            (folder / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "theirs"}))
        seen.update({path.name: path.read_bytes() for path in folder.rglob("*.journal")})

    with pytest.raises(RunError, match="took this folder over"):
        jobs.run(job, watch)
    assert json.loads((jobs.path / "out" / "lock").read_text())["token"] == "theirs"  # noqa: S105
    assert not (jobs.path / "out" / "report.json").exists()


def test_a_journal_of_a_newer_version_is_refused_and_left_alone(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    (journal,) = (jobs.path / "out" / "parts").glob("*.journal")
    journal.write_bytes(journal.read_bytes().replace(b'"llmbatch_journal": 1', b'"llmbatch_journal": 2'))
    before = journal.read_bytes()
    with pytest.raises(FolderError, match=r"newer llmbatch.*journal version 2"):
        jobs.run(job)
    assert journal.read_bytes() == before


def test_a_part_of_a_newer_version_is_refused(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    meta = jobs.path / "out" / "parts" / "part-00000.meta.json"
    meta.write_bytes(meta.read_bytes().replace(b'"llmbatch_part": 1', b'"llmbatch_part": 2'))
    with pytest.raises(FolderError, match=r"newer llmbatch.*part version 2"):
        jobs.run(job)


def test_a_missing_part_is_made_again_whatever_the_window_size_is_now(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, run={"window": 4})
    jobs.run(job)
    results = jobs.results()
    for name in ("results.jsonl", "parts/part-00001.jsonl", "parts/part-00001.meta.json"):
        (jobs.path / "out" / name).unlink()
    jobs.run(job.model_copy(update={"run": job.run.model_copy(update={"window": 2})}))
    assert jobs.results() == results


@pytest.mark.parametrize("lost", [(1, 2), (0, 1), (1, 2, 3), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("window", [1, 3, 100])
def test_adjacent_windows_that_are_lost_are_made_again(
    jobs: Any, ten: Path, lost: tuple[int, ...], window: int
) -> None:
    job = jobs.job(ten, run={"window": 2})
    jobs.run(job)
    results = jobs.results()
    (jobs.path / "out" / "results.jsonl").unlink()
    for number in lost:
        for name in ("jsonl", "meta.json"):
            (jobs.path / "out" / "parts" / f"part-{number:05d}.{name}").unlink()
    jobs.run(job.model_copy(update={"run": job.run.model_copy(update={"window": window})}))
    assert jobs.results() == results


def test_windows_that_are_lost_of_a_run_over_some_rows_are_made_again(jobs: Any, ten: Path) -> None:
    chosen = jobs.path / "rows.txt"
    chosen.write_text("0\n1\n3\n4\n7\n8\n")
    job = jobs.job(ten, run={"window": 1, "rows": str(chosen)})
    jobs.run(job)
    results = jobs.results()
    (jobs.path / "out" / "results.jsonl").unlink()
    for number in (1, 2, 3):
        for name in ("jsonl", "meta.json"):
            (jobs.path / "out" / "parts" / f"part-{number:05d}.{name}").unlink()
    jobs.run(job)
    assert jobs.results() == results


def test_a_report_counts_every_row_of_the_input_whatever_was_left_to_do(jobs: Any) -> None:
    """The rows get longer, so that what was read of the input, in bytes, tells little of the number of rows."""
    rows = jobs.rows({"text": "x" * i * i} for i in range(50))
    job = jobs.job(rows, run={"window": 5})
    jobs.run(job)
    (jobs.path / "out" / "results.jsonl").unlink()
    for name in ("jsonl", "meta.json"):
        (jobs.path / "out" / "parts" / f"part-00001.{name}").unlink()
    assert jobs.run(job).report["rows"]["total"] == 50
    rows.touch()
    assert jobs.run(job).report["rows"]["total"] == 50
    with rows.open("a") as file:
        file.write("\n" * 9)  # lines, and no rows
    assert jobs.run(job, extend=True).report["rows"]["total"] == 50


def test_a_torn_last_entry_is_owed_again(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten, run={"window": 100})
    (journal,) = (jobs.path / "out" / "parts").glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:-20])
    result = jobs.run(job)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(10)]
    assert result.report["sessions"][-1]["rows"] == 2  # the torn one and the last
    assert result.report["sessions"][-1]["tokens"]["prompt_tokens"] == 2 * jobs.records()[9]["usage"]["prompt_tokens"]


def test_a_journal_without_a_whole_header_is_begun_again(jobs: Any, ten: Path) -> None:
    job = stopped(jobs, ten)
    (journal,) = (jobs.path / "out" / "parts").glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:20])
    jobs.run(job)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(10)]


# An input that fails half-way


def test_rows_before_the_damage_of_a_compressed_input_are_done_and_the_run_stops(jobs: Any) -> None:
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in text_rows(5000)).encode())
    path = jobs.path / "rows.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    job = jobs.job(path, run={"window": 512})
    with pytest.raises(ReadError, match=r"rows\.jsonl\.gz: cannot be read beyond byte \d+"):
        jobs.run(job)
    done = jobs.report()["rows"]["done"]
    assert 0 < done < 5000
    assert any("rows before that are finished" in note for note in jobs.notes())
    assert not list((jobs.path / "out" / "parts").glob("*.journal"))
    path.write_bytes(whole)
    result = jobs.run(job, extend=True)
    assert result.report["sessions"][-1]["rows"] == 5000 - done
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(5000)]


# A row that kills the process itself


def test_a_row_that_kills_the_process_is_found_with_the_engine_in_a_process_of_its_own(jobs: Any) -> None:
    data = jobs.data(
        jobs.rows(text_rows(20)), {"rules": [{"when": {"index": 11}, "crash": True}], "latency": 0.01, "concurrency": 5}
    )
    codes = [jobs.finish(data)[0]]
    while codes[-1] == -signal.SIGKILL and len(codes) < 12:
        codes.append(jobs.finish(data)[0])
    assert codes[-1] == 3
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert [record["status"] for record in jobs.records()] == ["ok"] * 11 + ["failed"] + ["ok"] * 8
    assert jobs.records()[11]["error"]["kind"] == "engine_died"
    assert any("process of its own" in note["message"] for note in jobs.report()["notes"])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that within five minutes")


BROKEN = {
    "rows.jsonl": b'{"text": "one"}\n{broken\n[3]\n',
    "rows.csv": b'text\none\ntwo,"\nthree,3\n',
    "notes/b.txt": b"caf\xe9",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_record_says_the_same_of_its_place_however_the_input_was_named(
    jobs: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's own job file names the input in full, and the command that began the run need not have."""
    path = jobs.path / "below" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(BROKEN[name])
    monkeypatch.chdir(jobs.path / "below")
    if name.startswith("notes/"):
        named = ["notes", "./notes/", "../below/notes", str(path.parent)]
    else:
        named = [name, f"../below/{name}", str(path), f"../*/{name}", str(path.parent / f"*{path.suffix}")]
    results = []
    for number, given in enumerate(named):
        jobs.run(jobs.job(Path(), input={"path": given}, output=str(jobs.path / f"out-{number}")))
        results.append(jobs.results(f"out-{number}"))
    assert results == results[:1] * len(results)
    assert f'"message":"{path.name}:'.encode() in results[0]


def test_files_of_one_name_are_told_apart_however_they_were_named(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("de", "fr"):
        (jobs.path / "in" / name).mkdir(parents=True)
        (jobs.path / "in" / name / "a.jsonl").write_text("no json\n")
    monkeypatch.chdir(jobs.path / "in")
    named = (
        {"path": "*/a.jsonl"},
        {"path": f"{jobs.path}/**/a.jsonl"},
        {"path": "de/a.jsonl", "more": ["../in/fr/a.jsonl"]},
    )
    results = []
    for number, given in enumerate(named):
        jobs.run(jobs.job(Path(), input=given, output=str(jobs.path / f"out-{number}")))
        results.append(jobs.results(f"out-{number}"))
    assert results == results[:1] * 3
    assert [record["error"]["message"].partition(": ")[0] for record in jobs.records("out-0")] == [
        "de/a.jsonl:1",
        "fr/a.jsonl:1",
    ]
