"""Runs whose rows are worked on in processes beside the one that drives the engine: the same bytes, whatever ends when."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import RunError
from llmbatch.core.events import Event, Note, Planned, Sealed, Snapshot
from llmbatch.engines.kinds import make_engine
from llmbatch.job.job import job_from
from llmbatch.runs import loop
from llmbatch.runs.row_messages import read_block
from llmbatch.runs.row_workers import Lost, RowWorkers
from llmbatch.runs.session import open_session, run_job
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source

pytestmark = pytest.mark.usefixtures("forked")
PATIENCE = 300.0
FAILS = {
    "rules": [{"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}, {"when": {"matches": "3[12]$"}, "answer": ""}]
}
BROKEN = ["{not json", "[1, 2]", '{"id": "no text"}', '{"text": "\\ud800"}']
CHUNKS = {
    "name": "map_reduce",
    "settings": {"chunk": 6, "whole": False, "most": 3},
    "prompts": {"reduce": "All: {{ joined }}"},
}


def rows(count: int, *, distinct: int | None = None) -> list[Any]:
    made: list[Any] = [{"id": f"r{i}", "text": f"text {i % (distinct or count)}"} for i in range(count)]
    for place, line in enumerate(BROKEN):
        made.insert(7 * place + 3, line)
    return made


def row_workers(parent: int | None = None) -> list[psutil.Process]:
    """Those of a process, by default this one, that are alive."""
    found = []
    for child in psutil.Process(parent).children():
        try:
            if "llmbatch.runs.row_worker" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def notes(jobs: Any) -> list[str]:
    return [event.message for event in jobs.events if isinstance(event, Note)]


JOBS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "retries": (FAILS, {}),
    "duplicates": (FAILS, {"sinks": {"keep": "all"}}),
    "cut off": ({}, {"sampling": {"max_tokens": 2}, "retry": {"max_attempts": 4}}),
    "samples": (FAILS, {"sampling": {"n": 3, "temperature": 1, "seed": 1}}),
    "no ids": ({**FAILS, "no_ids": True, "no_context_length": True}, {}),
    "too long": ({"context_length": 12}, {"plan": {"overflow": "skip"}, "prompt": {"path": "{{ text }} {{ text }} {{ id }}"}}),
    "shortened": ({"context_length": 24}, {"plan": {"overflow": "truncate-tail"}, "sampling": {"max_tokens": 4}}),
    "several steps": (
        {"rules": [{"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}, {"answer": "ok"}]},
        {"program": CHUNKS, "prompt": {"path": "Of {{ text }}"}},
    ),
    "vectors": ({"dimensions": 8}, {"program": {"name": "embed"}}),
    "engine deaths": ({**FAILS, "die_after": [30, 31]}, {}),
    "replicas": (FAILS, {"engine": {"replicas": 2}}),
    "order of the corpus": (FAILS, {"run": {"order": "corpus"}}),
    "a slice": (FAILS, {"input": {"shard": "1/2"}}),
    "some rows": (FAILS, {}),
    "rows that cannot be counted": (FAILS, {}),
    "schema": (
        {"rules": [{"when": {"attempt": 1, "matches": "[05]$"}, "answer": "{"}, {"answer": '{"a": 1}'}]},
        {"answer": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
    ),
}  # fmt: skip


def same_jobs(jobs: Any, name: str, count: int = 96) -> Callable[..., Any]:
    """Makes the job with this name, with so many workers."""
    script, sections = JOBS[name]
    made = rows(count, distinct=count // 2 if name == "duplicates" else None)
    if name == "several steps":  # long enough for several chunks
        made = [
            {**row, "text": f"a b c d e f g h {row['text']} i j k"} if isinstance(row, dict) else row for row in made
        ]
    source = jobs.rows(made)
    if name == "rows that cannot be counted":
        packed = source.with_suffix(".jsonl.gz")
        packed.write_bytes(gzip.compress(source.read_bytes()))
        source = packed
    run: dict[str, Any] = {"window": 8, **sections.get("run", {})}
    if name == "some rows":
        run["rows"] = str(jobs.path / "indexes")
        (jobs.path / "indexes").write_text("\n".join(str(i) for i in range(0, count, 3)))

    def make(workers: int, output: str, **more: Any) -> Any:
        given = {**sections, **more}
        return jobs.job(
            source,
            script,
            **{**given, "run": {**run, "workers": workers, **more.get("run", {})}, "output": str(jobs.path / output)},
        )

    return make


@pytest.mark.parametrize("name", JOBS)
def test_results_have_the_same_bytes_with_any_number_of_workers(jobs: Any, name: str) -> None:
    make = same_jobs(jobs, name)
    alone = jobs.run(make(0, "alone"))
    jobs.events.clear()
    seen: list[int] = []
    shared = jobs.run(make(1, "shared"), lambda _: seen.append(len(row_workers())))
    assert max(seen) == 1
    assert not [note for note in notes(jobs) if note.startswith("run.workers")]
    assert jobs.results("shared") == jobs.results("alone")
    for kept in ("rows", "failures", "attempts"):
        assert shared.report[kept] == alone.report[kept], kept
    assert shared.report["tokens"]["useful"] == alone.report["tokens"]["useful"]
    assert row_workers() == []
    assert not (jobs.path / "shared" / "row-workers.log").exists()


def test_a_block_whose_prompts_hold_more_than_a_window_may_becomes_several(jobs: Any) -> None:
    """Rows are short, what is asked about them is long: only who renders them knows how much a window of them holds."""
    long = "words " * 200
    source = jobs.rows([{"id": i, "text": f"text {i}"} for i in range(64)])
    for workers in (0, 2):
        jobs.run(
            jobs.job(
                source, prompt={"path": long + "{{ text }}"}, output=str(jobs.path / str(workers)),
                run={"window": 16, "window_characters": 6_000, "workers": workers},
            )
        )  # fmt: skip
    bounds = [json.loads(path.read_bytes()) for path in sorted((jobs.path / "2" / "parts").glob("*.meta.json"))]
    assert len(bounds) > 64 // 16
    assert [meta["window"] for meta in bounds] == list(range(len(bounds)))
    assert max(meta["rows"] for meta in bounds) < 16
    assert all(before["stop"] == after["start"] for before, after in itertools.pairwise(bounds))
    assert jobs.results("2") == jobs.results("0")


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("retries", "as a window is planned"), ("retries", "with answers in hand"), ("cut off", "both"), ("several steps", "both"),
        ("vectors", "with answers in hand"),
    ],
)  # fmt: skip
def test_a_worker_that_is_killed_costs_nothing(jobs: Any, name: str, when: str) -> None:
    make = same_jobs(jobs, name, 160)
    jobs.run(make(0, "alone"))
    killed: list[int] = []

    def kill(event: Event) -> None:
        planned = isinstance(event, Planned) and event.window == 4
        sealed = isinstance(event, Sealed) and event.window >= 5
        wanted = {"as a window is planned": planned, "with answers in hand": sealed, "both": planned or sealed}[when]
        if wanted and len(killed) < (2 if when == "both" else 1) and (alive := row_workers()):
            alive[0].kill()
            killed.append(alive[0].pid)

    jobs.events.clear()
    assert jobs.run(make(2, "shared"), kill).outcome == "finished"
    assert killed
    assert jobs.results("shared") == jobs.results("alone")
    said = [note for note in notes(jobs) if note.startswith("run.workers")]
    assert len(said) == len(killed)
    assert "was killed by SIGKILL" in said[0]
    assert "another one takes its place; nothing is lost" in said[0]


@pytest.mark.parametrize("name", ["retries", "duplicates", "cut off", "samples", "several steps", "shortened"])
def test_what_a_worker_had_in_hand_is_taken_back(jobs: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still, so that outcomes reach it and are not answered, and then it is killed."""
    make = same_jobs(jobs, name, 160)
    jobs.run(make(0, "alone"))
    stopped: list[psutil.Process] = []
    taken_back: list[Lost] = []
    lost = RowWorkers.lost

    def seen(self: RowWorkers) -> Iterator[Lost]:
        for each in lost(self):
            taken_back.append(each)
            yield each

    monkeypatch.setattr(RowWorkers, "lost", seen)

    def watch(event: Event) -> None:
        if isinstance(event, Planned) and event.window == 2:
            stopped.extend(row_workers())
            for process in stopped:
                process.suspend()
        if isinstance(event, Snapshot) and stopped and stopped[0].is_running():
            for process in stopped:
                process.kill()

    assert jobs.run(make(2, "shared"), watch).outcome == "finished"
    assert sum(len(each.windows) for each in taken_back) > 0
    assert sum(len(each.outcomes) for each in taken_back) > 0
    assert jobs.results("shared") == jobs.results("alone")


def test_workers_that_end_again_and_again_are_replaced_a_few_times(jobs: Any) -> None:
    make = same_jobs(jobs, "retries", 400)
    jobs.run(make(0, "alone"))

    def kill(event: Event) -> None:
        if isinstance(event, Planned):
            for process in row_workers():
                process.kill()

    jobs.events.clear()
    assert jobs.run(make(1, "shared"), kill).outcome == "finished"
    assert jobs.results("shared") == jobs.results("alone")
    said = [note for note in notes(jobs) if note.startswith("run.workers")]
    assert len(said) == 3
    assert "the last time" in said[-1]


def test_a_worker_that_stands_still_keeps_no_one_from_stopping_the_run(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LAST_SECONDS", 0.5)
    make = same_jobs(jobs, "retries", 160)
    stopped: list[psutil.Process] = []

    def watch(event: Event) -> None:
        if isinstance(event, Planned) and event.window == 2:
            stopped.extend(row_workers())
            for process in stopped:
                process.suspend()
        elif isinstance(event, Snapshot) and stopped:
            signal.raise_signal(signal.SIGINT)

    assert jobs.run(make(2, "shared", run={"grace": 0.1}), watch).outcome == "stopped"
    assert row_workers() == []
    jobs.run(make(0, "alone"))
    jobs.run(make(2, "shared"))
    assert jobs.results("shared") == jobs.results("alone")


def test_a_file_of_the_job_that_was_changed_meanwhile_is_not_read_by_a_worker(jobs: Any) -> None:
    prompt = jobs.path / "prompt.yaml"
    head = "name: say\nvariables:\n  text: {type: string}\nmessages:\n"
    prompt.write_text(head + "  - {role: user, content: 'Say {{ text }}'}\n")
    job = jobs.job(jobs.rows(rows(96)), prompt={"path": str(prompt)}, run={"window": 8, "workers": 2})
    with open_session(job, [jobs.events.append]) as session:
        prompt.write_text(head + "  - {role: user, content: 'Another {{ text }}'}\n")
        for _ in session.windows():
            pass
        assert session.result().outcome == "finished"
    assert {record["output"] for record in jobs.records() if record["status"] == "ok"} == {
        f"Say text {i}" for i in range(96)
    }
    assert ["prompt (text)" in note and "was changed" in note for note in notes(jobs)] == [True]


def test_rows_that_were_counted_and_are_not_there_any_more_end_the_run(jobs: Any) -> None:
    source = open_source(SourceSettings(path=str(jobs.rows(rows(8)))))
    there = list(source.rows())
    assert list(read_block(source, there[2].cursor, 5)) == there[2:7]
    with pytest.raises(RunError, match="the input changed while it was read: run the same command again"):
        list(read_block(source, there[2].cursor, len(there) - 1))


def test_a_first_window_that_needs_no_engine_leaves_no_worker_waiting_for_it(jobs: Any) -> None:
    """A program that asks how long the context is before its first request waits for the engine, which somebody must start."""
    broken: list[Any] = ["{not json"] * 8
    job = jobs.job(
        jobs.rows(broken + rows(40)), {"rules": [{"answer": "ok"}]}, prompt={"path": "Of {{ text }}"}, program=CHUNKS,
        run={"window": 8, "workers": 2},
    )  # fmt: skip
    assert jobs.run(job).outcome == "finished"
    assert len(jobs.records()) == 8 + 40 + len(BROKEN)


def test_a_run_that_is_killed_goes_on_with_any_number_of_workers(jobs: Any) -> None:
    make = same_jobs(jobs, "retries", 160)
    jobs.run(make(0, "alone"))
    for number, fault in enumerate(("journal-opened:4", "part-sealed:4", "meta-written:6")):
        data = make((0, 2, 1)[number], "shared").data()
        jobs.killed(data, fault)
    seen: list[int] = []
    jobs.run(make(2, "shared"), lambda _: seen.append(len(row_workers())))
    assert max(seen) == 2
    assert jobs.results("shared") == jobs.results("alone")


def test_workers_end_with_a_run_that_is_killed(jobs: Any) -> None:
    source = jobs.rows(rows(400))
    script = {"rules": [{"hang": True}]}
    data = jobs.data(source, script, run={"window": 8, "workers": 2})
    process = jobs.start(data)
    end = time.monotonic() + PATIENCE
    workers: list[psutil.Process] = []
    while len(workers) < 2 and time.monotonic() < end:
        workers = row_workers(process.pid)
        time.sleep(0.05)
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert len(gone) == 2
    assert not alive


def test_a_run_that_is_stopped_keeps_what_workers_have_judged(jobs: Any) -> None:
    make = same_jobs(jobs, "retries", 400)
    pressed: list[int] = []

    def press(event: Event) -> None:
        if isinstance(event, Sealed) and event.window >= 10 and not pressed:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)

    answered: list[int] = []

    class Counted:
        """An engine whose answers are counted."""

        def __init__(self, engine: Any) -> None:
            self._engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

        def stream(self, feed: Any) -> Iterator[list[Any]]:
            for outcomes in self._engine.stream(feed):
                answered[-1] += len(outcomes)
                yield outcomes

    def run(job: Any, *watchers: Callable[[Event], None]) -> str:
        answered.append(0)
        return run_job(job, watchers, make=lambda *given: Counted(make_engine(*given))).outcome  # type: ignore[arg-type, return-value]

    assert run(make(2, "shared"), press) == "stopped"
    assert row_workers() == []
    assert run(make(2, "shared")) == run(make(0, "alone")) == "finished"
    first, second, alone = answered
    assert first
    assert second
    assert first + second == alone, "nothing was asked twice"
    assert jobs.results("shared") == jobs.results("alone")


def test_what_goes_wrong_in_the_authors_code_is_said_as_without_workers(
    jobs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "author.py").write_text("def reject(value):\n    return 1 / 0 if value == 'text 60' else None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = jobs.rows(rows(96))
    said = []
    for workers in (0, 2):
        job = jobs.job(
            source, answer={"reject": ["author:reject"]}, run={"window": 8, "workers": workers},
            output=str(jobs.path / str(workers)),
        )  # fmt: skip
        with pytest.raises(RunError) as error:
            jobs.run(job)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "division by zero" in said[0]


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"accept": {"rows": 5, "when": "'5' in output"}}, "the run may end before its input"),
        ({"reuse": {"cache": "answers.sqlite"}}, "reuse.cache"),
    ],
)
def test_what_cannot_be_had_in_other_processes_is_said_and_done_in_this_one(
    jobs: Any, sections: Mapping[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(jobs.path)
    job = jobs.job(jobs.rows(rows(64)), run={"window": 8, "workers": 2}, **sections)
    assert jobs.run(job).outcome == "finished"
    assert [
        note
        for note in notes(jobs)
        if note.startswith("run.workers: rows are worked on in this process") and why in note
    ]


def test_a_job_that_another_process_cannot_read_is_worked_on_in_this_one(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that was made in this process alone, as in a notebook."""
    import sys
    import types

    module = types.ModuleType("only_here")
    exec("def reject(value):\n    return value == 'text 9'\n", module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "only_here", module)
    job = jobs.job(jobs.rows(rows(64)), answer={"reject": ["only_here:reject"]}, run={"window": 8, "workers": 2})
    assert jobs.run(job).outcome == "finished"
    said = [note for note in notes(jobs) if note.startswith("run.workers")]
    assert len(said) == 1
    assert "only_here" in said[0]
    assert {
        record["status"] for record in jobs.records() if record["output"] == "text 9" or record.get("raw") == "text 9"
    } == {"invalid"}


def test_a_short_input_starts_no_process(jobs: Any) -> None:
    started: list[int] = []
    job = jobs.job(jobs.rows(rows(20)), run={"window": 100, "workers": 4})
    jobs.run(job, lambda event: started.append(len(row_workers())) if isinstance(event, Snapshot | Planned) else None)
    assert started
    assert max(started) == 0


def test_windows_can_be_iterated_while_workers_fill_them(jobs: Any) -> None:
    source = jobs.rows(rows(64))
    job = job_from(jobs.data(source, FAILS, run={"window": 8, "workers": 2}))
    with open_session(job) as session:
        seen = sorted(index for window in session.windows() for index in window.order)
    assert seen == list(range(64 + len(BROKEN)))
