"""Answers that are asked for once: over windows, and over runs through the cache."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.events import EngineReady, Event, Snapshot
from llmbatch.core.tools import call_of
from llmbatch.core.types import Completion, Failure, FailureKind, Prompt, Refusal, Request, RequestKey, Sampling, Usage
from llmbatch.reuse.cache import AnswerCache
from llmbatch.reuse.memory import Reuse, ReuseSettings

BAD_AT_FIRST = {"when": {"attempt": 1, "matches": "[02468]$"}, "answer": ""}  # by text: as a model is, and not by row
ALWAYS_BAD = {"when": {"matches": "7$"}, "answer": ""}
OFF: dict[str, Any] = {"plan": {"fold": False}}


def rows(jobs: Any, count: int, distinct: int, name: str = "rows.jsonl") -> Path:
    return jobs.rows([{"id": f"r{i}", "text": f"text {i % distinct}"} for i in range(count)], name)  # type: ignore[no-any-return]


def asked(report: dict[str, Any]) -> int:
    """Prompt tokens that the engine was given, over all sessions."""
    return sum(session["tokens"]["prompt_tokens"] for session in report["sessions"])


def books_are_right(report: dict[str, Any]) -> None:
    tokens = report["tokens"]
    computed: dict[str, int] = {}
    for name in ("prompt_tokens", "completion_tokens"):
        computed[name] = sum(session["tokens"][name] for session in report["sessions"])
        assert tokens["useful"][name] + tokens["wasted"][name] == computed[name]
        assert tokens["total"][name] == computed[name] + tokens["folded"][name]


# Over windows


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"window": 1000}},
        {"run": {"window": 4}},
        {"run": {"window": 3, "windows_open": 1}},
        {"run": {"window": 1, "windows_open": 8}},
        {"run": {"window": 5}, "reuse": {"memory_rows": 0}},
        {"run": {"window": 5}, "reuse": {"memory_rows": 3}},
        {"run": {"window": 5}, "reuse": {"memory_mib": 0.002}},
    ],
)
def test_the_bytes_are_the_same_whether_answers_are_reused_or_not(jobs: Any, sections: dict[str, Any]) -> None:
    path = rows(jobs, 60, 11)
    script = {"rules": [BAD_AT_FIRST, ALWAYS_BAD], "latency": 0.001, "concurrency": 3}
    jobs.run(jobs.job(path, script, output=str(jobs.path / "plain"), sampling={"max_tokens": 5}, **OFF))
    result = jobs.run(jobs.job(path, script, sampling={"max_tokens": 5}, **sections))
    assert jobs.results() == jobs.results("plain")
    books_are_right(result.report)


def test_duplicates_in_later_windows_are_asked_once_retries_included(jobs: Any) -> None:
    path, once = rows(jobs, 60, 11), rows(jobs, 11, 11, "once.jsonl")
    script = {"rules": [BAD_AT_FIRST, ALWAYS_BAD]}
    result = jobs.run(jobs.job(path, script, run={"window": 4}))
    alone = jobs.run(jobs.job(once, script, output=str(jobs.path / "once")))
    assert asked(result.report) == asked(alone.report)
    assert result.report["rows"]["folded"] == 49


def test_rows_that_wait_for_an_answer_in_an_earlier_window_get_it(jobs: Any) -> None:
    script = {"rules": [{"when": {"contains": "text 0"}, "answer": "slow"}], "latency": 0.3}
    result = jobs.run(jobs.job(rows(jobs, 8, 1), script, run={"window": 2, "windows_open": 4}))
    assert [record["output"] for record in jobs.records()] == ["slow"] * 8
    assert result.report["rows"]["folded"] == 7


def test_what_the_engine_failed_once_is_not_held_against_the_duplicates(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 0}, "fail": "no"}]}
    jobs.run(jobs.job(rows(jobs, 4, 1), script, run={"window": 2}))
    assert [record["status"] for record in jobs.records()] == ["failed", "ok", "ok", "ok"]


def test_a_prompt_that_kills_the_engine_is_not_sent_again_for_its_duplicates(jobs: Any) -> None:
    script = {"rules": [{"when": {"contains": "text 2"}, "die": True}]}
    result = jobs.run(jobs.job(rows(jobs, 12, 4), script, run={"window": 4}, engine={"restarts": 50}))
    failed = [record["index"] for record in jobs.records() if record["status"] == "failed"]
    assert failed == [2, 6, 10]
    assert result.report["sessions"][0]["engine_restarts"] <= 4


def test_duplicates_keep_their_own_fields(jobs: Any) -> None:
    path = jobs.rows([{"id": i, "text": "same", "keep": i % 2} for i in range(6)])
    result = jobs.run(jobs.job(path, sinks={"keep": ["keep"]}, run={"window": 2}))
    assert [record["input"]["keep"] for record in jobs.records()] == [0, 1] * 3
    assert asked(result.report) == jobs.records()[0]["usage"]["prompt_tokens"]


def test_random_answers_are_never_shared(jobs: Any) -> None:
    result = jobs.run(jobs.job(rows(jobs, 6, 1), sampling={"temperature": 1.0}, run={"window": 2}))
    assert result.report["rows"]["folded"] == 0


def interrupt_at(count: int) -> Callable[[Event], None]:
    pressed: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and not pressed and event.rows >= count:
            pressed.append(event.rows)
            signal.raise_signal(signal.SIGINT)

    return watch


@pytest.mark.parametrize("grace", [0, 30])
def test_an_interrupted_run_with_duplicates_ends_with_the_same_bytes_and_books(jobs: Any, grace: int) -> None:
    script = {"rules": [BAD_AT_FIRST, ALWAYS_BAD], "latency": 0.03, "jitter": 0.9, "concurrency": 3}
    path = rows(jobs, 150, 90)
    job = jobs.job(path, script, run={"window": 8, "grace": grace})
    first = jobs.run(job, interrupt_at(20))
    assert first.outcome == "stopped"
    second = jobs.run(job)
    jobs.run(jobs.job(path, {**script, "latency": 0}, output=str(jobs.path / "plain"), **OFF))
    assert jobs.results() == jobs.results("plain")
    if grace:
        books_are_right(second.report)


# The memory


def request(index: int) -> Request:
    return Request(RequestKey(index), Prompt(text="x"), Sampling())


def answered(index: int, text: str = "x") -> Completion:
    return Completion(RequestKey(index), text, "stop", Usage(3, 1))


def test_the_answer_that_was_not_asked_for_the_longest_is_forgotten_first() -> None:
    reuse = Reuse(ReuseSettings(memory_rows=2))
    for index, digest in enumerate((b"a", b"b")):
        assert reuse.lead(request(index), digest)
        reuse.settle(answered(index))
    assert reuse.known(request(5), b"a") is not None
    assert reuse.lead(request(6), b"c")
    reuse.settle(answered(6))
    assert [reuse.known(request(9), digest) is not None for digest in (b"a", b"b", b"c")] == [True, False, True]


def test_who_waits_for_an_answer_that_failed_is_sent_for_itself() -> None:
    reuse = Reuse(ReuseSettings())
    assert [reuse.lead(request(i), b"a") for i in range(3)] == [True, False, False]
    shared = reuse.settle(Refusal(RequestKey(0), Failure(FailureKind.ENGINE, "no")))
    assert shared is not None
    assert (shared.outcomes, [each.key.index for each in shared.alone]) == ([], [1, 2])
    assert reuse.known(request(3), b"a") is None


# The cache


def cached(jobs: Any, path: Path, name: str, script: dict[str, Any] | None = None, **sections: Any) -> Any:
    cache = str(jobs.path / "answers.db")
    return jobs.job(path, script, output=str(jobs.path / name), reuse={"cache": cache}, **sections)


def test_a_second_run_takes_every_answer_from_the_cache_and_starts_no_engine(jobs: Any) -> None:
    path = rows(jobs, 40, 30)
    jobs.run(cached(jobs, path, "one"))
    jobs.events.clear()
    result = jobs.run(cached(jobs, path, "two", run={"window": 8}))
    assert jobs.results("two") == jobs.results("one")
    assert not any(isinstance(event, EngineReady) for event in jobs.events)
    assert (result.report["rows"]["cached"], result.report["rows"]["folded"]) == (40, 0)
    books_are_right(result.report)


def test_rows_that_were_tried_again_come_from_the_cache_without_an_engine_too(jobs: Any) -> None:
    """What follows a bad answer depends on the context length, which the cache knows of the engine that gave it."""
    script = {"rules": [BAD_AT_FIRST]}
    path = rows(jobs, 20, 20)
    jobs.run(cached(jobs, path, "one", script))
    assert max(record["attempts"] for record in jobs.records("one")) > 1
    jobs.events.clear()
    jobs.run(cached(jobs, path, "two", script))
    assert jobs.results("two") == jobs.results("one")
    assert not any(isinstance(event, EngineReady) for event in jobs.events)


def test_with_a_changed_prompt_for_some_rows_only_these_are_computed(jobs: Any) -> None:
    script = {"rules": [BAD_AT_FIRST]}
    before: list[dict[str, Any]] = [{"id": i, "text": f"text {i}"} for i in range(20)]
    after = [{**row, "text": f"new {row['id']}"} if row["id"] % 5 == 0 else row for row in before]
    jobs.run(cached(jobs, jobs.rows(before), "one", script))
    result = jobs.run(cached(jobs, jobs.rows(after, "after.jsonl"), "two", script))
    jobs.run(jobs.job(jobs.path / "after.jsonl", script, output=str(jobs.path / "plain")))
    jobs.run(
        jobs.job(
            jobs.rows([row for row in after if row["id"] % 5 == 0], "new.jsonl"), script, output=str(jobs.path / "new")
        )
    )
    assert jobs.results("two") == jobs.results("plain")
    assert asked(result.report) == asked(jobs.report("new"))
    assert result.report["rows"]["cached"] == 16
    books_are_right(result.report)


def test_a_changed_check_judges_the_cached_answers_anew(jobs: Any, ten: Path) -> None:
    jobs.run(cached(jobs, ten, "one"))
    strict: dict[str, Any] = {"answer": {"regex": "text [0-4]", "constrained": False}, "retry": {"max_attempts": 1}}
    result = jobs.run(cached(jobs, ten, "two", **strict))
    assert [record["status"] for record in jobs.records("two")] == ["ok"] * 5 + ["invalid"] * 5
    assert asked(result.report) == 0


@pytest.mark.parametrize(
    "changed", [{"model": "other"}, {"sampling": {"max_tokens": 7}}, {"engine": {"lora": {"a": "b"}}}], ids=str
)
def test_another_model_or_sampling_gets_no_answer_of_this_one(jobs: Any, ten: Path, changed: dict[str, Any]) -> None:
    jobs.run(cached(jobs, ten, "one"))
    result = jobs.run(cached(jobs, ten, "two", **changed))
    assert result.report["rows"]["cached"] == 0


@pytest.mark.parametrize("content", [b"not a database, " * 500, b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_cache_is_said_and_the_run_goes_on_without_it(jobs: Any, ten: Path, content: bytes) -> None:
    (jobs.path / "answers.db").write_bytes(content)
    result = jobs.run(cached(jobs, ten, "out"))
    assert result.exit_code == 0
    assert any("answers.db: the cache cannot be used" in note for note in jobs.notes())
    assert (jobs.path / "answers.db").read_bytes() == content


def test_a_database_of_another_program_is_left_alone(jobs: Any, ten: Path) -> None:
    with sqlite3.connect(jobs.path / "answers.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    jobs.run(cached(jobs, ten, "out"))
    assert any("another program's database" in note for note in jobs.notes())


def test_an_answer_that_was_changed_in_the_file_is_computed_again(jobs: Any, ten: Path) -> None:
    jobs.run(cached(jobs, ten, "one"))
    with sqlite3.connect(jobs.path / "answers.db") as connection:
        connection.execute("UPDATE answers SET answer = replace(answer, 'text 3', 'text 4')")
    connection.close()
    result = jobs.run(cached(jobs, ten, "two"))
    assert jobs.results("two") == jobs.results("one")
    assert result.report["rows"]["cached"] == 9


def test_a_cache_that_another_process_has_locked_ends_nothing(
    jobs: Any, ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.reuse.cache._BUSY_SECONDS", 0.1)  # a wait, and not what is tested
    jobs.run(cached(jobs, ten, "one"))
    holder = sqlite3.connect(jobs.path / "answers.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    result = jobs.run(cached(jobs, ten, "two", sampling={"max_tokens": 100}))
    holder.close()
    assert result.exit_code == 0
    assert any("locked" in note for note in jobs.notes())


def test_two_processes_fill_one_cache_at_the_same_time(jobs: Any) -> None:
    everything = [{"id": i, "text": f"text {i}"} for i in range(500)]
    halves = [jobs.rows(everything[start : start + 300], f"{start}.jsonl") for start in (0, 200)]
    both = []
    for number, half in enumerate(halves):
        data = jobs.data(half, output=str(jobs.path / f"run{number}"), reuse={"cache": str(jobs.path / "answers.db")})
        both.append(jobs.start(data, "--quiet"))
        # the job file is read by then, and may be written anew
        while both[-1].poll() is None and not (jobs.path / f"run{number}" / "job.yaml").exists():
            pass
    assert [process.wait(600) for process in both] == [0, 0]
    assert jobs.run(cached(jobs, jobs.rows(everything, "all.jsonl"), "all")).report["rows"]["cached"] == 500


def test_an_answer_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    usage = Usage(5, 2, 4)
    logprobs: list[dict[str, Any]] = [{"token": "a", "logprob": -0.5, "top": []}]
    kept = [
        Completion(RequestKey(1), "a \ud800 \u2028 ü", "stop", usage, (), "thought", "</s>", logprobs),
        Completion(RequestKey(2), "cut", "length", usage, (7, 8)),
        Completion(RequestKey(3), "", "stop", usage, tool_calls=[call_of("f", "{}")]),
    ]
    cache = AnswerCache(tmp_path / "sub" / "answers.db", {"model": "m"})
    for number, completion in enumerate(kept):
        cache.put(bytes([number]) * 16, completion)
    cache.close()
    again = AnswerCache(tmp_path / "sub" / "answers.db", {"model": "m"})
    found = again.get(bytes([number]) * 16 for number in range(600) if number < 256)
    again.close()
    assert cache.trouble is None
    assert sorted(found) == [bytes([number]) * 16 for number in range(len(kept))]
    for number, completion in enumerate(kept):
        back = found[bytes([number]) * 16]
        assert (back.text, back.finish_reason, back.usage, back.reasoning) == (
            completion.text, completion.finish_reason, completion.usage, completion.reasoning,
        )  # fmt: skip
        assert (back.stop_reason, back.logprobs, tuple(back.token_ids)) == (
            completion.stop_reason, completion.logprobs, tuple(completion.token_ids),
        )  # fmt: skip
        assert (back.tool_calls, back.reused_from) == (completion.tool_calls, "cache")


def test_a_cache_is_refused_where_folding_is_off(jobs: Any, ten: Path) -> None:
    with pytest.raises(JobError, match=r"reuse\.cache"):
        cached(jobs, ten, "out", **OFF)


def test_where_a_run_is_interrupted_what_came_from_the_cache_is_still_counted_so(jobs: Any) -> None:
    script = {"rules": [BAD_AT_FIRST], "latency": 0.05, "concurrency": 2}
    path = rows(jobs, 40, 40)
    some = jobs.rows([json.loads(line) for line in itertools.islice(path.open(), 10)], "some.jsonl")
    jobs.run(cached(jobs, some, "some", script))
    job = cached(jobs, path, "out", script, run={"window": 20})
    assert jobs.run(job, interrupt_at(14)).outcome == "stopped"
    report = jobs.run(job).report
    assert report["rows"]["cached"] == 10
    books_are_right(report)


def test_what_was_put_is_in_the_file_once_the_future_of_its_flush_is_done(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "cache", {"model": "m"})
    for n in range(3):
        cache.put(bytes([n]) * 32, Completion(RequestKey(n), f"answer {n}", "stop", Usage(1, 1, 0)))
        writing = cache.flush()
        assert writing is not None
        writing.result()
        other = AnswerCache(tmp_path / "cache", {"model": "m"})  # as one of another process, after a kill of this one
        assert [found.text for found in other.get([bytes([n]) * 32]).values()] == [f"answer {n}"]
        other.close()
    cache.close()
