"""Deaths of the engine, caused by the scripted engine's script, through whole runs."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmbatch.core.errors import EngineDied, EngineError, JobError, NotServed, OutOfMemory
from llmbatch.core.events import Event, Note
from llmbatch.core.types import Completion, Outcome, Prompt, Request, RequestKey, Sampling, Usage
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.supervised import Supervised


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i}"} for i in range(count)]


def statuses(jobs: Any) -> list[str]:
    return [record["status"] for record in jobs.records()]


def test_a_death_is_survived_and_its_requests_go_again(jobs: Any) -> None:
    result = jobs.run(jobs.job(jobs.rows(text_rows(60)), {"die_after": [10, 30], "concurrency": 7}))
    assert result.exit_code == 0
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(60)]
    assert {record["attempts"] for record in jobs.records()} == {1}
    assert result.report["sessions"][0]["engine_restarts"] == 2


def test_a_death_is_told_with_how_many_requests_go_again(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows(text_rows(20)), {"die_after": [4], "concurrency": 5, "latency": 0.001}))
    assert any(
        re.search("died after 4 requests.* [1-5] requests were in flight and go again", note) for note in jobs.notes()
    )


def test_results_are_the_same_with_deaths_and_without(jobs: Any) -> None:
    rows = jobs.rows(text_rows(80))
    fail = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}
    jobs.run(jobs.job(rows, {"rules": [fail]}, output=str(jobs.path / "plain")))
    jobs.run(jobs.job(rows, {"rules": [fail], "die_after": [9, 33, 60], "concurrency": 16}))
    assert jobs.results() == jobs.results("plain")


def test_a_row_that_kills_the_engine_is_found_among_hundreds_and_all_others_finish(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 217}, "die": True}], "concurrency": 512}
    result = jobs.run(jobs.job(jobs.rows(text_rows(500)), script))
    assert statuses(jobs) == ["ok"] * 217 + ["failed"] + ["ok"] * 282
    assert jobs.records()[217]["error"]["kind"] == "engine_died"
    assert result.report["sessions"][0]["engine_restarts"] <= 2 + 9 + 1
    assert any("row with index 217 is set apart" in note for note in jobs.notes())


def test_several_rows_that_kill_the_engine_are_each_found(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": [3, 40, 41, 99]}, "die": True}], "concurrency": 64}
    jobs.run(jobs.job(jobs.rows(text_rows(100)), script))
    assert [i for i, status in enumerate(statuses(jobs)) if status == "failed"] == [3, 40, 41, 99]


def test_the_record_of_such_a_row_is_the_same_however_it_was_found(jobs: Any) -> None:
    rows = jobs.rows(text_rows(30))
    rules = [{"when": {"index": 7}, "die": True}]
    jobs.run(jobs.job(rows, {"rules": rules, "concurrency": 30}))
    jobs.run(jobs.job(rows, {"rules": rules, "concurrency": 2}, output=str(jobs.path / "plain"), run={"window": 5}))
    assert jobs.results() == jobs.results("plain")


def test_a_killing_row_that_is_the_last_of_the_only_window_is_found_too(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 9}, "die": True}], "concurrency": 4}
    jobs.run(jobs.job(jobs.rows(text_rows(20)), script, run={"window": 10, "windows_open": 1}))
    assert statuses(jobs) == ["ok"] * 9 + ["failed"] + ["ok"] * 10


def test_a_killing_row_that_is_alone_in_the_input_is_found_too(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows(text_rows(1)), {"rules": [{"when": {"index": 0}, "die": True}]}))
    assert statuses(jobs) == ["failed"]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_an_engine_that_dies_of_everything_ends_the_run_and_blames_no_row(jobs: Any, count: int) -> None:
    rows = jobs.rows(text_rows(count))
    job = jobs.job(rows, {"rules": [{"die": True, "times": 60}], "concurrency": 8}, engine={"restarts": 2})
    with pytest.raises(EngineError, match=r"died \d+ times without an answer between.*engine\.log"):
        jobs.run(job)
    assert jobs.report()["rows"]["by_status"]["failed"] == 0
    for _ in range(60):  # the rule is used up at some point: then the engine is well again
        with contextlib.suppress(EngineError):
            jobs.run(job)
            break
    assert statuses(jobs) == ["ok"] * count


def test_no_row_is_blamed_where_the_engine_dies_of_something_harmless_too(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))
    # three deaths with the row alone, and the fourth of what is to show that the engine lives
    jobs.run(jobs.job(jobs.rows(text_rows(1)), {"rules": [{"die": True, "times": 4}]}))
    assert statuses(jobs) == ["ok"]
    assert any("died without the row with index 0 too" in note for note in jobs.notes())


def test_the_pause_before_a_restart_grows_with_each_that_fails(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on only as they pause."""
    now, pauses = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("llmbatch.engines.supervised.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))

    def watch(event: Event) -> None:
        if isinstance(event, Note) and "could not be restarted" in event.message:
            pauses.append(round(now[0] - sum(pauses), 3))

    job = jobs.job(jobs.rows(text_rows(20)), {"die_after": [5], "starts": 1}, engine={"restarts": 7})
    with pytest.raises(EngineError, match="died 8 times without an answer between"):
        jobs.run(job, watch)
    assert pauses == [0.0, 1.0, 5.0, 15.0, 30.0, 30.0, 30.0]


def test_no_restart_is_made_where_none_is_allowed(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(10)), {"die_after": [5]}, engine={"restarts": 0})
    with pytest.raises(EngineError, match="died 1 times"):
        jobs.run(job)


def test_the_engines_own_counts_leave_out_what_was_asked_to_see_that_it_lives(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 5}, "die": True}], "concurrency": 1}
    result = jobs.run(jobs.job(jobs.rows(text_rows(8)), script))
    tokens = result.report["tokens"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert tokens["useful"][name] + tokens["wasted"][name] == result.report["sessions"][0]["tokens"][name]


def test_too_little_memory_at_the_start_lowers_how_many_run_at_a_time(jobs: Any) -> None:
    result = jobs.run(jobs.job(jobs.rows(text_rows(10)), {"concurrency": 256, "out_of_memory_above": 100}))
    assert result.exit_code == 0
    assert result.report["engine"]["max_num_seqs"] == 64
    assert [note.split("Trying")[1] for note in jobs.notes()] == [f" again with max_num_seqs={n}" for n in (128, 64)]


def test_an_engine_that_never_has_the_memory_ends_the_run(jobs: Any) -> None:
    with pytest.raises(OutOfMemory):
        jobs.run(jobs.job(jobs.rows(text_rows(10)), {"out_of_memory_above": 0}))


def test_running_out_of_memory_in_the_middle_lowers_it_too(jobs: Any) -> None:
    rule = {"when": {"index": 4}, "die": "out_of_memory", "times": 1}
    result = jobs.run(jobs.job(jobs.rows(text_rows(10)), {"rules": [rule], "concurrency": 64}))
    assert result.exit_code == 0
    assert any("ran out of memory; it is restarted with max_num_seqs=32" in note for note in jobs.notes())


def test_an_engine_that_hangs_is_restarted_after_its_timeout(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 4}, "hang": True, "times": 1}]}
    result = jobs.run(jobs.job(jobs.rows(text_rows(10)), script, engine={"timeout": 0.3}))
    assert statuses(jobs) == ["ok"] * 10
    assert result.report["sessions"][0]["engine_restarts"] == 1
    assert any("answered nothing for 0.3 s" in note for note in jobs.notes())


def test_a_row_that_always_hangs_the_engine_is_set_apart(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 4}, "hang": True}]}
    jobs.run(jobs.job(jobs.rows(text_rows(10)), script, engine={"timeout": 0.2}))
    assert statuses(jobs) == ["ok"] * 4 + ["failed"] + ["ok"] * 5


def test_a_slow_engine_that_goes_on_answering_is_not_taken_for_one_that_hangs(jobs: Any) -> None:
    script = {"latency": 0.2, "concurrency": 1}
    result = jobs.run(jobs.job(jobs.rows(text_rows(5)), script, engine={"timeout": 0.5}))
    assert result.report["sessions"][0]["engine_restarts"] == 0


def test_a_stop_during_a_death_restarts_no_engine(jobs: Any) -> None:

    script = {"rules": [{"when": {"index": 0}, "die": True}], "latency": 0.05, "concurrency": 20}
    job = jobs.job(jobs.rows(text_rows(20)), script, run={"grace": 60})

    def watch(event: Event) -> None:
        if isinstance(event, Note) and "go again" in event.message:
            signal.raise_signal(signal.SIGINT)

    result = jobs.run(job, watch)
    assert result.outcome == "stopped"
    assert result.report["sessions"][0]["engine_restarts"] == 1
    assert "failed" not in {kind for kind, rows in result.report["rows"]["by_status"].items() if rows}


def test_an_engine_whose_settings_are_wrong_is_refused_before_anything_is_begun(jobs: Any) -> None:
    with pytest.raises(JobError, match="concurency"):
        jobs.run(jobs.job(jobs.rows(text_rows(1)), engine={"args": {"concurency": 3}}))
    assert not (jobs.path / "out" / "run.json").exists()


def test_a_lost_connection_starts_no_search_and_blames_no_row(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 4}, "die": "lost", "times": 2}], "concurrency": 16}
    result = jobs.run(jobs.job(jobs.rows(text_rows(10)), script))
    assert statuses(jobs) == ["ok"] * 10
    assert result.report["sessions"][0]["engine_restarts"] == 2
    assert not any("run apart" in note for note in jobs.notes())


def test_a_connection_that_is_lost_for_good_ends_the_run_and_blames_no_row(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 4}, "die": "lost"}]}
    with pytest.raises(EngineError, match="died 3 times without an answer between"):
        jobs.run(jobs.job(jobs.rows(text_rows(10)), script, engine={"restarts": 2}))
    assert jobs.report()["rows"]["by_status"]["failed"] == 0


def test_a_lost_connection_in_a_search_leaves_the_suspects_suspects(jobs: Any) -> None:
    lost = {"when": {"index": 6}, "die": "lost", "times": 1}
    script = {"rules": [lost, {"when": {"index": 3}, "die": True}], "concurrency": 8}
    jobs.run(jobs.job(jobs.rows(text_rows(8)), script))
    assert [i for i, status in enumerate(statuses(jobs)) if status == "failed"] == [3]


class Ends:
    """An engine that ends one request that nobody wants any more, and then fails; it answers none."""

    def __init__(self, failure: EngineError) -> None:
        self._failure = failure

    def start(self) -> EngineInfo:
        return EngineInfo(name="scripted", version="1", model="m", context_length=None, max_num_seqs=1)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if requests := feed.take(1, 1 << 40):
            yield [Completion(request.key, "", "abort", Usage()) for request in requests]
            raise self._failure

    def stop(self) -> None:
        pass

    def counts(self) -> Usage:
        return Usage()

    def busy(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (EngineDied("gone", suspect=False), "died 3 times without an answer between: gone"),
        (NotServed("it is not there"), "^it is not there$"),
    ],
    ids=["dies", "not served"],
)
def test_a_request_that_is_ended_on_request_is_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, failure: EngineError, said: str
) -> None:
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))
    settings, engine = EngineSettings(name="scripted", restarts=2), cast("Any", Ends(failure))
    driver, feed = Supervised(lambda _: engine, settings, lambda _: None), Feed()
    feed.push([Request(RequestKey(index), Prompt(text="a"), Sampling()) for index in range(20)])
    feed.close()
    driver.start()
    with pytest.raises(EngineError, match=said):
        list(driver.stream(feed))
