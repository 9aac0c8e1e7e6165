"""Programs of one's own, given in Python: functions of a module, of a script, closures; and the example that is documented."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import llmbatch
from llmbatch import Ask, Complete, Failure, Incomplete, Program, RowAsk, Status
from llmbatch.core.errors import FolderError, JobError

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_program.py"
ROWS = [{"id": f"r{i}", "text": f"text {i}"} for i in range(8)]
SCRIPTED: Any = {"name": "scripted"}

SCRIPT = """
import sys
import llmbatch

TIMES = 2


def make(word):
    def twice(row):
        for _ in range(TIMES):
            answer = yield row.ask("next", before=word)
        return answer.value

    return twice


llmbatch.run(
    model="any",
    prompt="{{ text }}",
    program={"name": make(sys.argv[2]), "prompts": {"next": "{{ before }} {{ text }}"}},
    input=[{"id": i, "text": str(i)} for i in range(20)],
    output=sys.argv[1],
    engine={"name": "scripted", "args": {"latency": 0.05, "concurrency": 3}},
)
"""


def better(row: RowAsk) -> Program:
    draft = yield row.ask()
    if draft is None:
        return Incomplete()
    better = yield row.ask("better", draft=draft.value)
    return Complete(better.value, {"draft": draft.value})


def run(folder: Path, **arguments: Any) -> llmbatch.Run:
    settings = {"model": "any", "prompt": "{{ text }}", "input": ROWS, "output": folder / "out", "engine": SCRIPTED}
    return llmbatch.run(**{**settings, **arguments})


def test_a_function_is_a_program(tmp_path: Path) -> None:
    section = {"name": better, "prompts": {"better": "better {{ draft }}"}}
    done = run(tmp_path, program=section)
    assert [record.output for record in done] == [f"better text {i}" for i in range(8)]
    assert next(iter(done)).details == {"draft": "text 0"}
    assert f"{__name__}:better" in (tmp_path / "out" / "job.yaml").read_text()


def test_a_closure_is_a_program_and_the_same_call_goes_on_or_is_done(tmp_path: Path) -> None:
    def asking(times: int) -> Any:
        def program(row: RowAsk) -> Program:
            answers = yield [row.ask()] * times
            return [answer.value for answer in answers]

        return program

    assert [record.output for record in run(tmp_path, program=asking(2))][3] == ["text 3"] * 2
    before = (tmp_path / "out" / "report.json").read_bytes()
    run(tmp_path, program=asking(2))
    assert (tmp_path / "out" / "report.json").read_bytes() == before
    with pytest.raises(FolderError, match=r"program\.name \(source\) is another"):
        run(tmp_path, program=asking(3))


def test_records_of_two_programs_of_one_name_do_not_get_mixed_up() -> None:
    def saying(word: str) -> Any:
        def program(row: RowAsk) -> Program:
            yield row.ask()
            return word

        return program

    def records(word: str) -> Any:
        return llmbatch.generate(ROWS, model="any", prompt="{{ text }}", engine=SCRIPTED, program=saying(word))

    pairs = zip(records("one"), records("two"), strict=True)
    assert {(one.output, two.output) for one, two in pairs} == {("one", "two")}


def test_a_program_of_the_table_is_given_by_its_name() -> None:
    section = {"name": "chain", "prompts": {"b": "b {{ main }}"}, "settings": {"steps": ["main", "b"]}}
    (record, *_) = llmbatch.generate(ROWS, model="any", prompt="a {{ text }}", engine=SCRIPTED, program=section)
    assert record.output == "b a text 0"
    (record, *_) = llmbatch.generate(ROWS, model="any", prompt="a {{ text }}", engine=SCRIPTED, program="single")
    assert record.output == "a text 0"
    with pytest.raises(JobError, match=r"unknown program 'chian' \(did you mean 'chain'\?\)"):
        llmbatch.generate(ROWS, model="any", prompt="{{ text }}", program="chian")
    with pytest.raises(JobError, match="program: is 3, and a program is a generator function"):
        llmbatch.generate(ROWS, model="any", prompt="{{ text }}", program=3)  # type: ignore[arg-type]


def test_a_program_is_told_why_an_answer_that_it_asks_to_be_told_of_failed(tmp_path: Path) -> None:
    from dataclasses import replace

    def program(row: RowAsk) -> Program:
        ask = row.ask()
        assert isinstance(ask, Ask)
        answer = yield replace(ask, tells=True)
        assert isinstance(answer, Failure)
        return f"it was {answer.kind}"

    done = run(tmp_path, program=program, answer={"reject": ["/text/"]})
    assert {(record.status, record.output) for record in done} == {(Status.OK, "it was rejected")}


def test_a_script_s_own_program_survives_a_kill_and_no_other_command_can_go_on_with_it(
    forked: None, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def call(output: str, word: str = "so", **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(tmp_path / output), word]
        path = os.pathsep.join(sys.path)
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True
        )

    assert call("whole").returncode == 0
    assert call("out", LLMBATCH_FAULT="journal-append:3").returncode == -9
    assert (done := call("out")).returncode == 0, done.stderr
    results = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert results == (tmp_path / "whole" / "results.jsonl").read_bytes() and b'"so 19"' in results
    other = call("out", word="other")
    assert other.returncode != 0 and "program.name (source) is another" in other.stderr
    command = [sys.executable, "-m", "llmbatch.cli", "retry-failed", str(tmp_path / "out"), "--max-attempts", "9"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert "the program twice was given to llmbatch in Python" in told.stderr
    assert "make the same call again, or put twice into a module" in told.stderr


# the documented example


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_program", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_program", module)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs_and_goes_on(example: ModuleType, tmp_path: Path) -> None:
    rules = [{"when": {"step": step}, "answer": answer} for step, answer in enumerate(["four", "fünf", "six"])]
    engine = {"name": "scripted", "args": {"rules": rules}}
    for _ in range(2):
        (record, *_) = example.main(str(tmp_path / "out"), engine=engine)
        assert (record.output, record.details["words"]["German"]) == ("six", "fünf")


@pytest.mark.vllm
def test_the_example_runs_with_the_model_that_comes_along(example: ModuleType, tmp_path: Path) -> None:
    (record, *_) = example.main(
        str(tmp_path / "out"), engine={"args": {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 27}}
    )
    assert record.output == "quarante-deux"
    assert record.details["words"]["German"] == "zweiundvierzig"
