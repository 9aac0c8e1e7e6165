"""Programs of several steps and many requests, through whole runs on the scripted engine: kills, refusals, memory, stops."""

from __future__ import annotations

import json
import linecache
import math
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.events import Event, Snapshot
from llmbatch.job.job import job_from
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import open_session, run_job

PROGRAMS = '''
from dataclasses import replace

from llmbatch.programs.base import Incomplete


def draft_and_judge(row):
    """A draft, and another prompt that judges it."""
    draft = yield row.ask()
    if draft is None:
        return Incomplete()
    verdict = yield row.ask("judge", draft=draft.value)
    return Incomplete(draft.value) if verdict is None else {"draft": draft.value, "verdict": verdict.value}


def many(row):
    """So many requests at once as the settings say, then one over all."""
    parts = yield [row.ask("part", number=number) for number in range(row.settings["requests"])]
    whole = yield row.ask("part", number="all")
    return [part.value for part in parts if part is not None] + [whole.value]


def short_after_long(row):
    """Where the whole text cannot be asked about, its name can."""
    answer = yield row.ask()
    if answer is None:
        answer = yield row.ask("name")
    return answer.value


def broken(row):
    yield row.ask()
    raise KeyError("oh")


def choose(row):
    """The likeliest of some continuations, by their log-probabilities."""
    ask = row.ask()
    scores = yield [replace(ask, target=target) for target in row.settings["targets"]]
    if None in scores:
        return Incomplete()
    best = max(range(len(scores)), key=lambda i: scores[i].value.logprob)
    return {"best": row.settings["targets"][best], "scores": [list(score.value) for score in scores]}


def unknown_prompt(row):
    yield row.ask("nobody")
'''


@pytest.fixture
def programs(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with programs in the current folder; its name."""
    name = f"programs_{abs(hash(str(jobs.path))):x}"
    (jobs.path / f"{name}.py").write_text(PROGRAMS)
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def judged(jobs: Any, programs: str, rows: int = 30, **sections: Any) -> dict[str, Any]:
    """A job of two steps, the second with a prompt, sampling and choices of its own."""
    judge = jobs.path / "judge.yaml"
    judge.write_text(
        "name: judge\ndescription: d\nvariables: {text: {type: any}, draft: {type: any}}\n"
        'messages: [{role: user, content: "judge {{ draft }} of {{ text }}"}]\n'
        "sampling: {temperature: 0, max_tokens: 50}\noutput: {choice: [good, bad]}\n"
    )
    path = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(rows)])
    program = {"name": f"{programs}:draft_and_judge", "prompts": {"judge": "judge.yaml"}}
    data: dict[str, Any] = jobs.data(path, program=program, **sections)
    return data


def test_each_step_has_its_own_prompt_sampling_and_choices(jobs: Any, programs: str) -> None:
    script = {"rules": [{"when": {"step": 1, "contains": "text 3"}, "answer": "bad"}]}
    jobs.run(job_from(judged(jobs, programs, 5, **{})))
    assert [record["output"] for record in jobs.records()] == [
        {"draft": f"text {i}", "verdict": "good"} for i in range(5)
    ]
    assert {record["attempts"] for record in jobs.records()} == {2}
    path = jobs.rows([{"id": "r3", "text": "text 3"}], "one.jsonl")
    program = {"name": f"{programs}:draft_and_judge", "prompts": {"judge": "judge.yaml"}}
    jobs.run(jobs.job(path, script, program=program, output=str(jobs.path / "one")))
    assert jobs.records("one")[0]["output"] == {"draft": "text 3", "verdict": "bad"}


@pytest.mark.parametrize(
    ("fault", "window"),
    [("journal-append:1", 100), ("journal-append:3", 100), ("journal-torn", 100), ("part-sealed:2", 8)],
)
def test_a_run_of_several_steps_that_is_killed_comes_to_the_same_bytes(
    jobs: Any, programs: str, fault: str, window: int
) -> None:
    jobs.run(job_from(judged(jobs, programs, run={"window": window}, output=str(jobs.path / "whole"))))
    script = jobs.path / "slow.yaml"
    script.write_text("latency: 0.1\nconcurrency: 4\n")
    data = judged(jobs, programs, run={"window": window}, engine={"script": str(script)})
    jobs.killed(data, fault)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, [jobs.path, *sys.path]))}
    code, _, err = jobs.finish(data, environment=environment, cwd=jobs.path)
    assert code == 0, err
    assert jobs.results() == jobs.results("whole")


def test_deaths_of_the_engine_between_steps_change_nothing(jobs: Any, programs: str) -> None:
    jobs.run(job_from(judged(jobs, programs, output=str(jobs.path / "whole"))))
    script = jobs.path / "deaths.yaml"
    script.write_text("die_after: [7, 20, 44]\nconcurrency: 5\n")
    jobs.run(job_from(judged(jobs, programs, engine={"script": str(script)})))
    assert jobs.results() == jobs.results("whole")


def test_a_changed_prompt_of_a_step_is_another_job(jobs: Any, programs: str) -> None:
    from llmbatch.core.errors import FolderError

    data = judged(jobs, programs, 3)
    jobs.run(job_from(data))
    text = (jobs.path / "judge.yaml").read_text()
    (jobs.path / "judge.yaml").write_text(text.replace("judge {{", "rate {{"))
    with pytest.raises(FolderError, match=r"program\.prompts\.judge \(text\) is another"):
        jobs.run(job_from(data))


def test_a_changed_program_is_another_job(jobs: Any, programs: str) -> None:
    from llmbatch.core.errors import FolderError

    data = judged(jobs, programs, 3)
    jobs.run(job_from(data))
    module = jobs.path / f"{programs}.py"
    module.write_text(module.read_text().replace("if verdict is None else", "if not verdict else"))
    del sys.modules[programs]
    linecache.checkcache()
    with pytest.raises(FolderError, match=r"program\.name \(source\) is another"):
        jobs.run(job_from(data))


def many(jobs: Any, programs: str, requests: int, rows: int = 1, **sections: Any) -> Any:
    path = jobs.rows([{"text": f"text {i}"} for i in range(rows)])
    program = {
        "name": f"{programs}:many",
        "prompts": {"part": "part {{ number }} of {{ text }}"},
        "settings": {"requests": requests},
    }
    return jobs.job(path, program=program, **sections)


def test_a_row_may_have_thousands_of_requests(jobs: Any, programs: str) -> None:
    jobs.run(many(jobs, programs, 3000, 2))
    assert [len(record["output"]) for record in jobs.records()] == [3001, 3001]
    assert jobs.records()[1]["output"][2999:] == ["part 2999 of text 1", "part all of text 1"]


def calls_of(function: Any) -> int:
    """How many Python functions are called while it runs, in all threads."""
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return count


def test_the_work_for_many_requests_of_a_row_grows_as_their_number_also_when_it_is_resumed(
    jobs: Any, programs: str
) -> None:
    """Not with its square: counted in calls, since seconds are another matter on every machine."""
    first, again = [], []
    for requests in (400, 1600):
        output = str(jobs.path / f"out{requests}")
        stop = Stop()

        def halt(event: Event, stop: Stop = stop) -> None:
            if isinstance(event, Snapshot) and (event.in_flight, event.waiting) == (1, 0):  # the last one hangs
                stop.ask("enough")

        script = jobs.path / f"script{requests}.yaml"
        script.write_text("rules: [{when: {contains: part all}, hang: true, times: 1}]")
        job = many(jobs, programs, requests, output=output, run={"grace": 0}, engine={"script": str(script)})
        with open_session(job, [halt], stop=stop) as session:
            first.append(calls_of(lambda session=session: list(session.windows())))  # type: ignore[misc]
        journal = next((Path(output) / "parts").glob("*.journal")).read_text()
        assert journal.count('"outcome"') == requests
        again.append(calls_of(lambda job=job: run_job(job)))  # type: ignore[misc]
        assert len(json.loads((Path(output) / "results.jsonl").read_text())["output"]) == requests + 1
    assert again[1] < 6 * again[0]
    assert first[1] < 8 * first[0], "besides, it waits: the calls while it waits are counted too"


@pytest.mark.parametrize("window", [1, 100])
def test_what_follows_a_prompt_that_is_too_long_is_asked(jobs: Any, programs: str, window: int) -> None:
    rows = [{"id": f"r{i}", "text": "x" * (500 if i % 3 == 1 else 20)} for i in range(9)]
    program = {"name": f"{programs}:short_after_long", "prompts": {"name": "name {{ id }}"}}
    jobs.run(jobs.job(jobs.rows(rows), {"context_length": 200}, program=program, run={"window": window}))
    outputs = [record["output"] for record in jobs.records()]
    assert outputs == [f"name r{i}" if i % 3 == 1 else "x" * 20 for i in range(9)]
    assert {record["status"] for record in jobs.records()} == {"ok"}


def test_a_program_that_fails_breaks_the_run_and_names_the_row(jobs: Any, programs: str) -> None:
    with pytest.raises(RunError, match=r"row 'r0': its program raised KeyError: 'oh'"):
        jobs.run(jobs.job(jobs.rows([{"id": "r0", "text": "x"}]), program={"name": f"{programs}:broken"}))


def test_a_prompt_that_the_job_does_not_have_is_told_with_those_it_has(jobs: Any, programs: str) -> None:
    with pytest.raises(JobError, match=r"'nobody', and the job has main: name it under program\.prompts"):
        jobs.run(jobs.job(jobs.rows([{"text": "x"}]), program={"name": f"{programs}:unknown_prompt"}))


def test_what_follows_answers_of_the_cache_is_asked(jobs: Any, programs: str) -> None:
    """All of the first step comes from the cache, before an engine is up."""
    cache = {"reuse": {"cache": str(jobs.path / "cache.sqlite")}}
    plain = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(6)], "plain.jsonl")
    jobs.run(jobs.job(plain, output=str(jobs.path / "plain"), **cache))
    jobs.run(job_from(judged(jobs, programs, 6, **cache)))
    assert [record["output"]["verdict"] for record in jobs.records()] == ["good"] * 6
    assert jobs.report()["rows"]["cached"] == 6


# likelihoods


def choosing(jobs: Any, programs: str, script: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    rows = jobs.rows([{"id": f"r{i}", "text": f"text {i % 7}"} for i in range(20)])
    program = {"name": f"{programs}:choose", "settings": {"targets": ["text 3", "text 5", "other"]}}
    data: dict[str, Any] = jobs.data(rows, script, program=program, sampling={"temperature": 1.0}, **sections)
    return data


def test_a_program_asks_for_the_likelihood_of_continuations(jobs: Any, programs: str) -> None:
    jobs.run(job_from(choosing(jobs, programs)))
    records = jobs.records()
    assert [record["output"]["best"] for record in records[3:6:2]] == ["text 3", "text 5"]
    assert records[3]["output"]["scores"][0] == [pytest.approx(6 * math.log(0.9)), True, 6]
    assert records[3]["output"]["scores"][1] == [pytest.approx(5 * math.log(0.9) + math.log(0.1 / 255)), False, 6]
    assert (records[3]["attempts"], records[3]["usage"]["completion_tokens"]) == (3, 3)
    assert jobs.report()["rows"]["folded"] == 13, (
        "a likelihood is not drawn, so equal requests run once at any temperature"
    )


@pytest.mark.parametrize("fault", ["journal-append:1", "part-sealed:1"])
def test_likelihoods_survive_a_kill_and_deaths_with_the_same_bytes(jobs: Any, programs: str, fault: str) -> None:
    plan = {"plan": {"fold": False}}
    jobs.run(job_from(choosing(jobs, programs, output=str(jobs.path / "whole"), run={"window": 10}, **plan)))
    data = choosing(
        jobs, programs, {"latency": 0.1, "concurrency": 5, "die_after": [4, 13]}, run={"window": 10}, **plan
    )
    jobs.killed(data, fault)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, [jobs.path, *sys.path]))}
    code, _, err = jobs.finish(data, environment=environment, cwd=jobs.path)
    assert code == 0, err
    assert jobs.results() == jobs.results("whole")


def test_likelihoods_come_from_the_cache_of_an_earlier_run(jobs: Any, programs: str) -> None:
    cache = {"reuse": {"cache": str(jobs.path / "cache.sqlite")}}
    jobs.run(job_from(choosing(jobs, programs, output=str(jobs.path / "first"), **cache)))
    jobs.run(job_from(choosing(jobs, programs, **cache)))
    assert jobs.results() == jobs.results("first")
    assert jobs.report()["rows"]["cached"] == 20


def test_an_engine_that_cannot_score_refuses_and_the_row_has_its_record(jobs: Any, programs: str) -> None:
    jobs.run(job_from(choosing(jobs, programs, {"no_ids": True})))
    assert {(r["status"], r["error"]["kind"]) for r in jobs.records()} == {("failed", "refused")}


# memory


def peak_of(function: Any) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_fields_that_nobody_uses_take_no_memory(jobs: Any) -> None:
    rows = jobs.rows({"text": f"text {i}", "unused": "x" * 2_000_000} for i in range(40))
    assert peak_of(lambda: jobs.run(jobs.job(rows))) < 40_000_000
    assert len(jobs.records()) == 40


def test_fields_that_are_held_end_a_window(jobs: Any) -> None:
    rows = jobs.rows({"text": f"text {i}", "long": "x" * 1000} for i in range(40))
    jobs.run(jobs.job(rows, sinks={"keep": ["long"]}, run={"window_characters": 10_000}))
    parts = sorted((jobs.path / "out" / "parts").glob("*.jsonl"))
    assert [len(part.read_text().splitlines()) for part in parts] == [10, 10, 10, 10]


def test_rows_with_many_requests_end_a_window(jobs: Any, programs: str) -> None:
    jobs.run(many(jobs, programs, 10, 12, run={"window": 10}))
    parts = sorted((jobs.path / "out" / "parts").glob("*.jsonl"))
    assert [len(part.read_text().splitlines()) for part in parts] == [4, 4, 4]


# a stop from outside


def test_whoever_starts_a_run_can_end_it_and_the_same_call_goes_on(jobs: Any) -> None:
    rows = jobs.rows([{"text": f"text {i}"} for i in range(60)])
    job = jobs.job(rows, {"latency": 0.05, "concurrency": 3}, run={"window": 10})
    stop = Stop()
    seen = threading.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows > 0:
            seen.set()

    asker = threading.Thread(target=lambda: (seen.wait(60), stop.ask("the owner wants the machine")))
    asker.start()
    result = run_job(job, [watch], stop=stop)
    asker.join()
    assert (result.outcome, result.exit_code) == ("stopped", 130)
    assert result.report["error"] == "stopped: the owner wants the machine"
    assert not (jobs.path / "out" / "results.jsonl").exists()
    assert run_job(job).outcome == "finished"
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(60)]


def test_a_step_may_have_a_schema_sampling_and_variables_of_its_own_and_a_program_details(
    jobs: Any, programs: str
) -> None:
    module = jobs.path / f"{programs}.py"
    module.write_text(
        module.read_text()
        + "\n\nfrom llmbatch.programs.base import Complete\n\n\ndef measured(row):\n"
        + '    ask = row.ask("grade", draft="x")\n    grade = yield ask\n'
        + "    lengths = [row.tokens(['one two'])[0], row.room(ask), row.context_length]\n"
        + "    return Complete(grade.value, {'lengths': lengths, 'temperature': ask.sampling.get('temperature')})\n"
    )
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (jobs.path / "grade.json").write_text(json.dumps(schema))
    step = {
        "path": "grade {{ draft }} {{ text }} for {{ who }}",
        "answer": {"schema": "grade.json"},
        "sampling": {"temperature": 0.5, "seed": 1, "max_tokens": 20},
        "variables": {"who": "me"},
    }
    script = {"rules": [{"when": {"contains": "grade x a for me"}, "answer": '{"n": 4}'}]}
    job = jobs.data(
        jobs.rows([{"text": "a"}]), script, program={"name": f"{programs}:measured", "prompts": {"grade": step}}
    )
    code, _, said = jobs.finish(job)
    assert code == 0, said
    (record,) = jobs.records()
    assert record["output"] == {"n": 4}
    tokens, room, context = record["details"]["lengths"]
    assert tokens > 0 and room == context - 20 - record["usage"]["prompt_tokens"]
    assert record["details"]["temperature"] == 0.5
    changed = {**job, "program": {"name": f"{programs}:measured", "prompts": {"grade": {**step, "sampling": {}}}}}
    code, _, said = jobs.finish(changed)
    assert code != 0 and "program.prompts.grade.sampling.temperature was 0.5" in said
    (jobs.path / "grade.json").write_text(json.dumps({**schema, "required": []}))
    code, _, said = jobs.finish(job)
    assert code != 0 and "program.prompts.grade.answer was" in said


def test_a_prompt_file_may_bring_its_program_whose_paths_are_its_own(jobs: Any, programs: str) -> None:
    data = judged(jobs, programs, 2)
    folder = jobs.path / "prompts"
    folder.mkdir()
    (jobs.path / "judge.yaml").rename(folder / "judge.yaml")
    main = (
        "name: main\ndescription: d\nvariables: {text: {type: any}}\nmessages: [{role: user, content: '{{ text }}'}]\n"
    )
    program = f"program: {{name: '{programs}:draft_and_judge', prompts: {{judge: ./judge.yaml}}}}\n"
    (folder / "main.yaml").write_text(main + program)
    jobs.run(job_from({**data, "prompt": str(folder / "main.yaml"), "program": {}}))
    assert jobs.records()[1]["output"] == {"draft": "text 1", "verdict": "good"}
    other = {"prompts": {"judge": {"path": "rate {{ draft }}", "answer": {"choice": ["fine"]}}}}
    jobs.run(job_from({**data, "prompt": str(folder / "main.yaml"), "program": other, "output": "other"}))
    assert jobs.records("other")[1]["output"] == {"draft": "text 1", "verdict": "fine"}, (
        "the job's goes over the file's"
    )
    (folder / "main.yaml").write_text(main + "program: {nam: single}\n")
    with pytest.raises(JobError, match=r"main: program: unknown key 'nam': did you mean name"):
        jobs.run(job_from({**data, "prompt": str(folder / "main.yaml"), "program": {}}))


def test_an_adapter_of_a_step_that_the_job_does_not_have_is_refused_before_the_start(jobs: Any) -> None:
    program = {"name": "single", "prompts": {"judge": {"path": "judge {{ text }}", "lora": "legal"}}}
    with pytest.raises(
        JobError, match=r"program\.prompts\.judge\.lora: there is no adapter 'legal': engine\.lora has none"
    ):
        jobs.run(jobs.job(jobs.rows([{"text": "a"}]), program=program))
