"""Batches of requests that are token ids: a run folder each, which survives a kill, and one engine for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import RunError, Stopped
from llmbatch.core.types import Score
from llmbatch.integrations import batch
from llmbatch.integrations.batch import Asked, Batches
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult, run_job

ASKS = """
import sys
from pathlib import Path
from llmbatch.integrations.batch import Asked, Batches

engine = {"name": "scripted", "args": {"concurrency": 4, "latency": 0.05}}
asked = [Asked(f"number {n}", f"say {n}", [n + 1], sampling={"temperature": 0}) for n in range(40)]
print(Batches("any", engine, Path(sys.argv[1])).run("answers", asked) == [f"say {n}" for n in range(40)])
"""
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 50}


def make(folder: Path, **args: Any) -> Batches:
    """With a script of its own, as starts and deaths are counted by script."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.yaml"
    script.write_text(json.dumps(args))
    return Batches("any", {"name": "scripted", "script": str(script)}, folder)


def asked(*texts: str) -> list[Asked]:
    return [Asked(f"request {text}", text, list(text.encode()), sampling=GREEDY) for text in texts]


def ask(folder: Path, fault: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if fault is None else {"LLMBATCH_FAULT": fault})}
    return subprocess.run(
        [sys.executable, "-c", ASKS, str(folder)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("fault", ["journal-append:2", "journal-torn:2", "renamed/results.jsonl:1"])
def test_a_batch_that_is_killed_goes_on_and_asks_nothing_again_that_was_answered(tmp_path: Path, fault: str) -> None:
    killed = ask(tmp_path, fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = ask(tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
    (report,) = [json.loads(path.read_bytes()) for path in tmp_path.glob("*/report.json")]
    assert report["rows"]["by_status"]["ok"] == 40
    assert report["sessions"][-1]["rows"] < 40


def test_answers_and_likelihoods_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    likelihood = Asked("a likelihood", "ab", [1, 2], target=list(b"ab"))
    found = make(tmp_path).run("both", [*asked("x", "y"), likelihood, *asked("x")])
    assert found[:2] == ["x", "y"] and found[3] == "x"
    assert isinstance(found[2], Score) and found[2].tokens == 2 and found[2].greedy


def test_an_answer_that_is_empty_or_cut_off_is_an_answer(tmp_path: Path) -> None:
    short = Asked("short", "abcdef", [1], sampling={"temperature": 0, "max_tokens": 3})
    assert make(tmp_path).run("some", [short, *asked("")]) == ["abc", ""]


def test_one_engine_serves_all_batches(tmp_path: Path) -> None:
    batches = make(tmp_path, starts=1)
    assert batches.run("some", asked("x")) == ["x"]
    assert batches.run("some", asked("y", "z")) == ["y", "z"]


def test_an_engine_that_died_is_made_anew_and_costs_no_answer(tmp_path: Path) -> None:
    batches = make(tmp_path, die_after=[2])
    assert batches.run("some", asked("x", "y", "z")) == ["x", "y", "z"]


@pytest.mark.parametrize("engine", [{"replicas": 2}, {"hosted": True}], ids=["two", "apart"])
def test_engines_that_cannot_be_kept_can_serve_a_batch(tmp_path: Path, engine: dict[str, Any]) -> None:
    batches = Batches("any", {"name": "scripted", **engine}, tmp_path)
    assert batches.run("some", asked(*"abcdef")) == list("abcdef")


def test_nothing_is_asked_of_an_engine_for_no_requests(tmp_path: Path) -> None:
    assert make(tmp_path, starts=1, out_of_memory_above=1).run("none", []) == []
    assert [path.name for path in tmp_path.iterdir()] == ["script.yaml"]


def test_a_changed_engine_has_a_run_of_its_own(tmp_path: Path) -> None:
    make(tmp_path).run("some", asked("x"))
    make(tmp_path, context_length=500).run("some", asked("x"))
    assert len(list(tmp_path.glob("some-*.jsonl"))) == 2


def test_a_request_without_an_answer_is_told_by_its_name(tmp_path: Path) -> None:
    too_long = Asked("the long one", "x", [1] * 60, sampling=GREEDY)
    with pytest.raises(RunError, match=r"1 of 2 requests have no answer.*the long one: the prompt has 60 tokens"):
        make(tmp_path, context_length=50).run("some", [*asked("y"), too_long])


def test_a_run_that_was_stopped_says_that_it_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **settings: Any) -> RunResult:
        stop = Stop()
        stop.ask("SIGINT")
        return run_job(*arguments, **settings, stop=stop)

    monkeypatch.setattr(batch, "run_job", interrupted)
    with pytest.raises(Stopped, match=r"SIGINT.*the same command goes on"):
        make(tmp_path).run("some", asked("x"))
    monkeypatch.undo()
    assert make(tmp_path).run("some", asked("x")) == ["x"]
