"""Chains, best of several, and children of rows, through whole runs on the scripted engine: kills, deaths, folding, the cache."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import FolderError, JobError, RunError
from llmbatch.job.job import job_from
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import run_job

GRADE = {
    "type": "object",
    "properties": {"score": {"type": "integer"}, "words": {"type": "string"}},
    "required": ["score", "words"],
    "additionalProperties": False,
}
RULES: dict[str, list[dict[str, Any]]] = {
    "chain": [
        {"when": {"contains": "grade", "attempt": 1, "index": [1, 4]}, "answer": "no JSON"},  # its step tries again
        {"when": {"contains": "revise", "index": 2}, "answer": " "},  # its step fails
        {"when": {"contains": "grade revise"}, "answer": '{"score": 5, "words": "good"}'},
        {"when": {"contains": "grade"}, "answer": '{"score": 2, "words": "poor"}'},
    ],
    "best_of": [
        {"when": {"contains": "judge", "index": 1}, "answer": "none"},  # a judge that never gives a score
        {"when": {"matches": "judge.*sample 2"}, "answer": "5"},
        {"when": {"contains": "judge"}, "answer": "3"},
        {"when": {"contains": "text", "sample": 3}, "answer": ""},  # a sample that fails
        {"when": {"contains": "text"}, "answer": "sample {sample} of {text}"},
    ],
    "fan_out": [
        {"when": {"contains": "text 3", "step": 0}, "answer": " "},  # a list that does not come
        {
            "when": {"contains": "text", "step": 0},
            "answer": "1. one of {text}?\n2. two?\n3. one of {text}?\n4. four?\n5. five?",
        },
        {"when": {"contains": "child four"}, "answer": ""},  # a child that fails in each row
    ],
}
PROGRAMS: dict[str, dict[str, Any]] = {
    "chain": {
        "prompts": {
            "grade": {"path": "grade {{ draft }} of {{ text }}", "answer": {"schema": GRADE}, "sampling": {"max_tokens": 60}},
            "revise": "revise {{ draft }} as {{ grade.words }}",
        },
        "settings": {
            "steps": [
                {"name": "draft", "prompt": "main"},
                {"repeat": 3, "until": "grade.score >= 4", "steps": ["grade", {"name": "draft", "prompt": "revise"}]},
            ],
            "output": {"score": "grade.score", "text": "draft"},
        },
    },
    "best_of": {"prompts": {"judge": "judge {{ response }}"}, "settings": {"n": 4, "judge": "judge"}},
    "fan_out": {"prompts": {"child": "child {{ item }} of {{ text }}"}, "settings": {"most": 3, "unique": True}},
}  # fmt: skip
COMMON = {"sampling": {"temperature": 1.0, "seed": 3}, "retry": {"feedback": False}}


def data(jobs: Any, name: str, rows: int = 12, **sections: Any) -> dict[str, Any]:
    """A job of one of the programs, in whose rows steps are tried again and fail."""
    path = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(rows)])
    made: dict[str, Any] = jobs.data(
        path, {"rules": RULES[name]}, program={"name": name, **PROGRAMS[name]}, **COMMON, **sections
    )
    return made


def test_a_chain_comes_to_its_output_step_by_step(jobs: Any) -> None:
    run_job(job_from(data(jobs, "chain", 5)))
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok", "ok", "invalid", "ok", "ok"]
    assert records[0]["output"] == {"text": "revise text 0 as poor", "score": 5}
    assert [step["step"] for step in records[0]["details"]["steps"]] == ["draft", "grade", "draft", "grade"]
    assert (records[0]["attempts"], records[1]["attempts"]) == (4, 6)
    assert [attempt["step"] for attempt in records[1]["history"]] == [1, 3]
    assert records[2]["output"] == {"text": "text 2", "score": 2}, "what came before the step that failed"
    assert records[2]["details"]["steps"][-1]["error"]["kind"] == "empty"


def test_of_several_samples_the_best_is_the_output_and_all_are_in_the_details(jobs: Any) -> None:
    run_job(job_from(data(jobs, "best_of", 3)))
    first, second, _ = jobs.records()
    assert first["output"] == "sample 2 of text 0"
    samples = first["details"]["samples"]
    assert [sample and sample["score"] for sample in samples] == [3, 3, 5, None]
    assert (second["status"], second["error"]["kind"]) == ("invalid", "rejected")
    assert "none of 3 samples has a score" in second["error"]["message"]


def test_children_are_rows_of_an_output_of_their_own(jobs: Any) -> None:
    result = run_job(job_from(data(jobs, "fan_out", 5)))
    records = jobs.records()
    assert records[0]["output"] == {"children": 3, "ok": 2, "repeated": 1, "left_out": 1}
    assert records[3]["status"] == "invalid"
    lines = [json.loads(line) for line in (jobs.path / "out" / "children.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines[:4]] == ["r0/0", "r0/1", "r0/2", "r1/0"]
    assert [line["output"] for line in lines[:3]] == ["child one of text 0? of text 0", "child two? of text 0", None]
    assert result.report["children"] == {
        "by_status": {"ok": 8, "invalid": 4, "truncated": 0, "failed": 0, "skipped": 0},
        "repeated": 4,
        "left_out": 4,
    }
    assert result.report["outputs"] == ["errors.jsonl", "results.jsonl", "children.jsonl"]


@pytest.mark.parametrize(
    ("name", "fault", "window"),
    [
        ("chain", "journal-append:3", 100),
        ("best_of", "journal-torn:2", 5),
        ("fan_out", "part-sealed:2", 5),
        ("fan_out", "temp-written/children.jsonl", 100),
    ],
)
def test_a_run_that_is_killed_comes_to_the_same_bytes(jobs: Any, name: str, fault: str, window: int) -> None:
    whole = data(jobs, name, run={"window": window}, output=str(jobs.path / "whole"))
    run_job(job_from(whole))
    slow = {**whole["engine"], "args": {"latency": 0.05, "concurrency": 4}}
    job = {**whole, "engine": slow, "output": str(jobs.path / "out")}
    jobs.killed(job, fault)
    code, _, said = jobs.finish(job)
    assert code in (0, 3), said
    assert jobs.results() == jobs.results("whole")
    if name == "fan_out":
        assert (jobs.path / "out/children.jsonl").read_bytes() == (jobs.path / "whole/children.jsonl").read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_deaths_of_the_engine_and_the_size_of_windows_change_nothing(jobs: Any, name: str) -> None:
    run_job(job_from(data(jobs, name, output=str(jobs.path / "whole"))))
    other = data(jobs, name, run={"window": 3})
    mortal = jobs.path / "mortal.yaml"
    mortal.write_text(json.dumps({"rules": RULES[name], "die_after": [5, 21, 40], "concurrency": 5}))
    report = run_job(job_from({**other, "engine": {"name": "scripted", "script": str(mortal)}})).report
    assert report["sessions"][0]["engine_restarts"] == 3
    assert jobs.results() == jobs.results("whole")


@pytest.mark.parametrize("name", PROGRAMS)
def test_equal_rows_are_computed_once_in_every_step_and_a_cache_spares_the_engine(jobs: Any, name: str) -> None:
    made = data(jobs, name, reuse={"cache": str(jobs.path / "cache.sqlite")})
    rows = jobs.rows([{"id": f"r{i}", "text": "text"} for i in range(6)], "equal.jsonl")
    job = job_from({**made, "input": str(rows), "engine": {"name": "scripted"}})
    report = run_job(job).report
    # of best_of the first row's samples, too, are all the same, and judged once
    assert report["rows"]["folded"] == (6 if name == "best_of" else 5)
    assert len({json.dumps([r["output"], r.get("details")]) for r in jobs.records()}) == 1
    again = run_job(
        job_from({**made, "input": str(rows), "engine": {"name": "scripted"}, "output": str(jobs.path / "again")})
    )
    assert again.report["rows"]["cached"] == 6 and again.report["engine"] is None
    assert jobs.results("again") == jobs.results()


def test_rows_that_are_tried_again_have_their_children_too(jobs: Any) -> None:
    run_job(job_from(data(jobs, "fan_out", 5)))
    before = (jobs.path / "out" / "children.jsonl").read_text().splitlines()
    result = retry_failed(jobs.path / "out", {"engine": {"script": None}})
    lines = [json.loads(line) for line in (jobs.path / "out" / "children.jsonl").read_text().splitlines()]
    assert len(lines) == len(before) + 1
    assert [line["item"] for line in lines if line["parent"] == "r3"] == ["text 3"]
    assert result.report["children"]["by_status"]["ok"] == 9
    assert audit(jobs.path / "out").complete


def test_an_audit_sees_children_that_are_damaged_or_gone(jobs: Any) -> None:
    run_job(job_from(data(jobs, "fan_out", 3)))
    path = jobs.path / "out" / "children.jsonl"
    assert audit(jobs.path / "out").complete
    whole = path.read_bytes()
    for damage, said in (
        (lambda: path.write_bytes(whole.replace(b'"r1/1"', b'"r1/7"')), "children.jsonl:5: is not the record"),
        (lambda: path.write_bytes(whole[:-20]), "children.jsonl:9: is not the record"),
        (path.unlink, "No such file"),
    ):
        damage()
        found = [problem for check in audit(jobs.path / "out").checks for problem in check.problems]
        assert len(found) == 1 and said in found[0]


def test_changed_settings_and_a_changed_function_are_another_job(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"scores_{abs(hash(str(jobs.path))):x}"
    module = jobs.path / f"{name}.py"
    module.write_text("def length(value):\n    return len(value)\n")
    made = data(jobs, "best_of", 3)
    made["program"] = {"name": "best_of", "settings": {"n": 2, "score": f"{name}:length"}}
    run_job(job_from(made))
    other = {**made, "program": {"name": "best_of", "settings": {"n": 3, "score": f"{name}:length"}}}
    with pytest.raises(FolderError, match=r"program\.settings\.n was 2"):
        run_job(job_from(other))
    module.write_text("def length(value):\n    return -len(value)\n")
    del sys.modules[name]
    with pytest.raises(FolderError, match=rf"program\.settings \({name}:length\) is another"):
        run_job(job_from(made))


def test_a_job_that_cannot_work_is_refused_before_anything_is_begun(jobs: Any) -> None:
    made = data(jobs, "chain")
    made["program"]["settings"] = {"steps": ["main", "revise", "grade"]}
    code, _, said = jobs.finish(made)
    assert code == 2
    assert "steps[1] (revise): the prompt revise takes 'grade', and the step grade comes later" in said
    assert not (jobs.path / "out").exists()


def test_a_program_that_yields_or_returns_something_else_is_told_with_the_row(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"wrong_{abs(hash(str(jobs.path))):x}"
    (jobs.path / f"{name}.py").write_text(
        "def asks_text(row):\n    yield 'text'\n\ndef asks_nothing(row):\n    yield\n\n"
        "def no_generator(row):\n    return 5\n\ndef no_json(row):\n    yield row.ask()\n    return {1, 2}\n\nNOT = 5\n"
    )
    rows = jobs.rows([{"id": "r0", "text": "x"}])
    for program, error, said in (
        ("asks_text", RunError, r"row 'r0': its program yielded 'text': it yields what row\.ask"),
        ("asks_nothing", RunError, r"row 'r0': its program yielded None"),
        ("no_generator", RunError, r"row 'r0': the program .* returned 5: it is to be a generator function"),
        ("no_json", RunError, r"row 'r0': its program returned what is no JSON: Object of type set"),
        ("NOT", JobError, r"is no function but 5: it takes a row and yields what it asks"),
    ):
        with pytest.raises(error, match=said):
            run_job(job_from(jobs.data(rows, program={"name": f"{name}:{program}"}, output=str(jobs.path / program))))


@pytest.mark.parametrize(
    ("name", "row", "answers", "output"),
    [
        (
            "draft-critique-revise",
            {"task": "Say hello."},
            {"<critique>": "Hello!", "<response>": '{"reasoning": "It shouts.", "score": 3}', "<task>": "HELLO"},
            "Hello!",
        ),
        (
            "question-answer-check",
            {"text": "It is blue."},
            {
                "<answer>": '{"reasoning": "So it says.", "verdict": "supported"}',
                "<question>": "It is blue.",
                "<text>": '{"quote": "blue", "question": "What colour is it?"}',
            },
            {"question": "What colour is it?", "answer": "It is blue.", "quote": "blue", "verdict": "supported"},
        ),
        (
            "topic-questions",
            {"topic": "tides"},
            {"<topic>": '{"questions": ["Why?", "When?", "Why?"]}', "<task>": "Because."},
            {"children": 2, "ok": 2, "repeated": 1},
        ),
        ("summarize-long", {"text": "It is blue."}, {"<text>": "Blue."}, "Blue."),
    ],
)
def test_the_shipped_prompts_with_a_program_run_as_they_are(
    jobs: Any, name: str, row: dict[str, Any], answers: dict[str, str], output: Any
) -> None:
    rules = [{"when": {"contains": mark}, "answer": answer} for mark, answer in answers.items()]
    job = jobs.data(jobs.rows([row]), {"rules": rules}, prompt={"path": name}, sampling={})
    run_job(job_from(job))
    (record,) = jobs.records()
    assert (record["status"], record["output"]) == ("ok", output)
