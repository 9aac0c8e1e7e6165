"""The process that holds an executor's engine, and the tasks that ask it: no Spark is needed for either."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import EngineError, JobError, RunError
from llmbatch.integrations.spark.base import Call, job_for
from llmbatch.integrations.spark.hosting import Hosting, answered
from llmbatch.integrations.spark.tables import executor_answers, in_task
from llmbatch.integrations.spark.wire import Answer, Facts, Place
from llmbatch.job.job import job_from

PATIENCE_SECONDS = 60.0


def call(fails: bool = True, as_it_came: bool = True, **args: Any) -> Call:
    return Call(
        job_for({"model": "demo", "engine": {"name": "scripted", "args": args}}), fails=fails, as_it_came=as_it_came
    )


@pytest.fixture
def hosting(tmp_path: Path, forked: None) -> Iterator[Hosting]:
    """A host of this process's own, which is ended after the test."""
    folder = tmp_path / "app" / "executor"
    folder.mkdir(parents=True)
    given = Hosting("app", folder=str(folder))
    yield given
    for process in hosts(given):
        process.kill()


def hosts(hosting: Hosting) -> list[psutil.Process]:
    """Those that said in the log that they are up, and have not ended."""
    found = []
    log = Path(str(hosting.folder)) / "host.log"
    for pid in re.findall(r"llmbatch host (\d+): up for", log.read_text() if log.exists() else ""):
        try:
            process = psutil.Process(int(pid))
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def texts(found: list[list[Answer]]) -> list[list[str | None]]:
    return [[answer.text for answer in batch] for batch in found]


def test_each_request_has_its_answer_null_stays_null_and_one_engine_serves_all_tasks(hosting: Hosting) -> None:
    heard: list[Facts] = []
    found: dict[int, list[list[str | None]]] = {}

    def task(number: int) -> None:
        batches = [[f"{number} a", None], [], [None], [f"{number} b", f"{number} a"]]
        found[number] = texts(list(answered(batches, call(), hosting, heard.append)))

    threads = [threading.Thread(target=task, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [[f"{n} a", None], [], [None], [f"{n} b", f"{n} a"]] for n in range(4)}
    last = max(heard)
    assert (last.engine_starts, last.host_starts, last.rows) == (1, 1, 12)
    assert len(hosts(hosting)) == 1


def test_a_struct_is_the_variables_of_the_profiles_prompt(hosting: Hosting) -> None:
    profile = {"model": "demo", "engine": {"name": "scripted"}, "prompt": {"path": "{{ a }}, {{ b.c }}"}}
    found = answered([[{"a": 1, "b": {"c": "two"}}]], Call(job_for(profile)), hosting)
    assert texts(list(found)) == [["1, two"]]


def test_the_next_batch_is_asked_before_the_answers_of_one_are_taken(hosting: Hosting) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[str]]:
        for number in range(4):
            taken.append(number)
            yield [f"text {number}"]

    answers = answered(batches(), call(), hosting)
    assert texts([next(answers)]) == [["text 0"]] and taken == [0, 1]
    assert len(list(answers)) == 3


def test_a_row_without_an_answer_says_why_or_fails_its_task(hosting: Hosting) -> None:
    refusing = {"rules": [{"when": {"contains": "bad"}, "fail": "not this one"}]}
    (found,) = answered([["good", "bad"]], call(fails=False, **refusing), hosting)
    assert found[0] == Answer("good", None)
    assert found[1].text is None and found[1].error is not None and "not this one" in found[1].error
    with pytest.raises(RunError, match=r"1 of 2 rows of a batch have no answer, the first one: .*not this one"):
        list(answered([["good", "bad"]], call(**refusing), hosting))


def test_an_answer_that_is_not_as_its_call_asks_is_given_as_it_came_or_is_an_error(hosting: Hosting) -> None:
    profile = {"model": "demo", "engine": {"name": "scripted", "args": {"rules": [{"answer": "no JSON"}]}}}
    job = job_for(profile, answer={"schema": {"type": "object"}})
    ((lenient,),) = answered([["a"]], Call(job, as_it_came=True), hosting)
    assert lenient == Answer("no JSON", None)
    ((strict,),) = answered([["a"]], Call(job, fails=False), hosting)
    assert strict.text is None and strict.error is not None and strict.error.startswith("invalid_json: ")
    ((null,),) = answered([["a"]], Call(job, null=("invalid_json",)), hosting)
    assert null == Answer(None, None)


def test_an_answer_that_was_cut_off_is_an_error_where_what_is_not_as_asked_is_one(hosting: Hosting) -> None:
    script = {"rules": [{"answer": "ye", "finish_reason": "length"}]}
    profile = {"model": "demo", "engine": {"name": "scripted", "args": script}, "retry": {"max_attempts": 1}}
    job = job_for(profile, answer={"choice": ["yes"], "constrained": False})
    ((lenient,),) = answered([["a"]], Call(job, as_it_came=True), hosting)
    assert lenient == Answer("ye", None)
    ((strict,),) = answered([["a"]], Call(job, fails=False), hosting)
    assert strict.text is None and strict.error is not None and strict.error.startswith("truncated: ")


def test_a_host_that_is_killed_is_followed_by_another_and_what_it_had_answered_is_not_asked_again(
    hosting: Hosting,
) -> None:
    heard: list[Facts] = []
    asked = call(latency=0.01, concurrency=8)
    batches = [[f"{number} {each}" for each in range(80)] for number in range(6)]
    found: list[list[Answer]] = []
    for number, answers in enumerate(answered(batches, asked, hosting, heard.append)):
        found.append(answers)
        if number == 2:
            (host,) = hosts(hosting)
            os.kill(host.pid, signal.SIGKILL)
    assert texts(found) == batches
    last = max(heard)
    assert (last.engine_starts, last.host_starts) == (2, 2)
    (host,) = hosts(hosting)
    os.kill(host.pid, signal.SIGKILL)
    again = list(answered(batches, asked, hosting, heard.append))  # as a task that Spark runs again
    assert texts(again) == batches
    last = max(heard)  # two batches are under way at a time, and either may end first
    assert last.engine_starts == 2, "all of it is in the cache, so no engine was started"
    assert last.reused >= len(batches) * len(batches[0])


def test_what_a_task_was_not_answered_when_it_ended_is_taken_back_from_the_engine(hosting: Hosting) -> None:
    heard: list[Facts] = []
    asked, hasty = call(rules=[{"when": {"contains": "slow"}, "hang": True}]), dataclasses.replace(hosting, patience=0)
    answers = answered([["a"], ["slow 1", "slow 2", "slow 1"], ["b"]], asked, hasty)
    assert texts([next(answers)]) == [["a"]], "and the second batch is asked"
    answers.close()  # as Spark does it where it needs no more rows; where it cancels a task it kills its process
    counts = Path(str(hosting.folder)) / "counts.jsonl"
    assert until(lambda: "given_up" in counts.read_text())
    assert texts(list(answered([["c"]], asked, hasty, heard.append))) == [["c"]]
    assert (heard[-1].given_up, heard[-1].engine_starts) == (2, 1)


def test_a_row_that_kills_the_host_is_found_and_the_others_are_answered(hosting: Hosting) -> None:
    poison = {"rules": [{"when": {"contains": "poison"}, "crash": True}]}
    (found,) = answered([["a", "poison", "b"]], call(fails=False, **poison), hosting)
    assert [answer.text for answer in found] == ["a", None, "b"]
    assert found[1].error is not None and found[1].error.startswith("engine_died: ")


def test_a_host_that_cannot_start_fails_the_task_with_where_its_log_is(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EngineError, match=r"ended at once, with exit code 1; see .*host\.log"):
        list(answered([["a"]], call(), hosting))


def test_a_job_that_is_wrong_on_the_executor_is_said_as_such(hosting: Hosting) -> None:
    job = {**job_for({"model": "demo", "engine": {"name": "scripted"}}), "prompt": {"path": "/nowhere/prompt.yaml"}}
    with pytest.raises(JobError, match=r"/nowhere/prompt\.yaml"):
        list(answered([["a"]], Call(job), hosting))


def test_an_engine_that_cannot_start_fails_the_task_and_the_next_one_tries_anew(
    hosting: Hosting, tmp_path: Path
) -> None:
    script = tmp_path / "script.yaml"
    script.write_text('{"out_of_memory_above": 0}')
    job = job_for({"model": "demo", "engine": {"name": "scripted", "script": str(script)}})
    with pytest.raises(EngineError, match="memory"):
        list(answered([["a"]], Call(job), hosting))
    script.write_text("{}")
    assert texts(list(answered([["a"]], Call(job), hosting))) == [["a"]]


def test_another_model_takes_the_place_of_one_that_has_nothing_to_do(hosting: Hosting) -> None:
    heard: list[Facts] = []
    for number in (1, 2, 1):
        list(answered([[f"to {number}"]], call(concurrency=number), hosting, heard.append))
    assert heard[-1].engine_starts == 2, "the third one was answered by the cache"
    list(answered([["something else"]], call(concurrency=1), hosting, heard.append))
    assert heard[-1].engine_starts == 3


def test_tasks_that_take_turns_with_two_models_all_end(hosting: Hosting) -> None:
    found: dict[int, list[list[str | None]]] = {}

    def task(number: int) -> None:
        batches = [[f"{number} {each}"] for each in range(6)]
        found[number] = texts(list(answered(batches, call(concurrency=1 + number % 2), hosting)))

    threads = [threading.Thread(target=task, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert found == {number: [[f"{number} {each}"] for each in range(6)] for number in range(4)}


def test_a_host_that_nobody_needs_ends(hosting: Hosting) -> None:
    short = Hosting("app", idle=0.2, folder=hosting.folder)
    assert texts(list(answered([["a"]], call(), short))) == [["a"]]
    assert until(lambda: not hosts(short))
    assert "nothing was asked for 0.2 s" in (Path(str(hosting.folder)) / "host.log").read_text()
    assert texts(list(answered([["b"]], call(), short))) == [["b"]]


def test_a_host_ends_with_its_executor(hosting: Hosting, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from llmbatch.integrations.spark.base import Call, job_for\n"
        "from llmbatch.integrations.spark.hosting import Hosting, answered\n"
        "asked = Call(job_for({'model': 'demo', 'engine': {'name': 'scripted'}}))\n"
        "print([[each.text for each in batch] for batch in answered([['a']], asked, Hosting('app', folder=sys.argv[1]))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(hosting.folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[['a']]", done.stderr
    assert until(lambda: not hosts(hosting))
    assert "its executor is gone" in (Path(str(hosting.folder)) / "host.log").read_text()


def test_the_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        assert Place.of("app", 1, 2).folder.name == "1-2"
        (base,) = Path(short).iterdir()
        base.chmod(0o755)
        with pytest.raises(EngineError, match="is not a folder of this user's alone"):
            Place.of("app", 1, 2)


def test_sparks_number_of_threads_for_a_task_is_not_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" not in Hosting("app").environment()
    assert Hosting("app", threads="4").environment()["OMP_NUM_THREADS"] == "4"


def test_rows_of_a_model_that_every_worker_loads_are_answered_by_the_one_engine(hosting: Hosting) -> None:
    rules = [{"when": {"contains": "bad"}, "fail": "not this one"}]
    data = {**job_for({"model": "demo", "engine": {"name": "scripted", "args": {"rules": rules}}}), "prompt": "{{ a }}"}
    found = executor_answers(job_from(data), [{"a": 1.5}, {"a": "bad"}, {}], hosting.folder)
    assert found[0] == Answer("1.5", None) and found[1].text is None and found[2].text is None
    assert "not this one" in str(found[1].error) and str(found[2].error).startswith("prompt: ")
    assert executor_answers(job_from(data), [], hosting.folder) == []
    assert len(hosts(hosting)) == 1


@pytest.mark.parametrize(
    "context",
    [None, SimpleNamespace(get=lambda: None), SimpleNamespace(get=SimpleNamespace)],
    ids=["no context", "no task", "a task"],
)
def test_only_a_process_with_a_task_is_at_work_for_spark(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    """``pyspark`` is a stand-in here."""
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(TaskContext=context))
    assert in_task() is (context is not None and context.get() is not None)


def test_a_hosts_engine_gets_the_gpus_that_spark_gave_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """``pyspark`` is a stand-in here."""
    task = SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=["2", "3"])})
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(TaskContext=SimpleNamespace(get=lambda: task)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Hosting("app").environment()["CUDA_VISIBLE_DEVICES"] == "2,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert Hosting("app").environment()["CUDA_VISIBLE_DEVICES"] == "7"


def test_the_path_of_a_socket_is_short_enough_where_that_of_temporary_files_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    place = Place.of("application_1700000000000_0001", 2**22, 2**40)
    assert len(place.socket) < 104
    place.folder.rmdir()


def test_what_is_told_to_a_host_is_plain(hosting: Hosting) -> None:
    """The rows are not code to whoever opens the socket, and settings cross as JSON."""
    settings = hosting.settings(apart=True)
    assert json.loads(json.dumps(dataclasses.asdict(settings)))["apart"] is True
