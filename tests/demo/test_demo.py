from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.demo.demo import HERE, JOBS, TASKS, Score, demo_job, run_demo, score
from llmbatch.runs.session import RunResult

# what the corpora have that is broken on purpose, in their order: how it was broken, and what must come of it
BROKEN = {
    "numbers": {
        ("failed", "malformed_row"): 3,  # not JSON, an array, not UTF-8
        ("failed", "prompt"): 2,  # no text, a text that is a number
        ("failed", "too_long"): 1,
        ("failed", "empty_prompt"): 1,
    },
    "orders": {("failed", "malformed_row"): 2, ("failed", "prompt"): 1},
}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]


def check_rows(name: str, folder: Path) -> None:
    """Each line of the corpus has its record, in its order; each broken one the status that it should have."""
    lines = (HERE / "corpus" / f"{name}.jsonl").read_bytes().splitlines()
    found = records(folder)
    assert len(found) == len(lines)
    bad: dict[tuple[str, str], int] = {}
    for index, (line, record) in enumerate(zip(lines, found, strict=True)):
        assert record["index"] == index
        if record["status"] == "ok":
            assert record["id"] == json.loads(line)["id"]
        else:
            kind = (record["status"], record["error"]["kind"])
            bad[kind] = bad.get(kind, 0) + 1
    assert bad == BROKEN[name]
    assert [record["id"] for record in found].count(f"{name}-0001") == 2
    assert audit(folder).complete


def test_every_corpus_has_a_prompt_a_truth_and_a_word_for_its_task() -> None:
    assert set(TASKS) == set(JOBS)
    for name in JOBS:
        truth = (HERE / "corpus" / f"{name}.truth.jsonl").read_text().splitlines()
        lines = (HERE / "corpus" / f"{name}.jsonl").read_bytes().splitlines()
        # of the broken lines one is an honest row with another's id
        assert len(truth) == len(lines) - sum(BROKEN[name].values()) - 1
        assert demo_job(name, Path("out")).model == "demo"


def test_without_a_model_every_line_has_its_record_all_the_same(tmp_path: Path) -> None:
    scores = run_demo(tmp_path, engine="scripted")
    assert [(each.name, each.right) for each in scores] == [("numbers", 0), ("orders", 0)]
    for name in JOBS:
        found = records(tmp_path / name)
        assert [record["index"] for record in found] == list(range(len(found)))


def result_of(folder: Path, outcome: Any = "finished") -> RunResult:
    return RunResult(folder, outcome, {}, 0)  # type: ignore[typeddict-item]


def test_only_exact_answers_are_right(tmp_path: Path) -> None:
    truth = [json.loads(line) for line in (HERE / "corpus" / "orders.truth.jsonl").read_text().splitlines()]
    outputs = [json.loads(row["output"]) for row in truth]
    outputs[0] = {**outputs[0], "more": 1}
    outputs[1] = "text"
    lines = [{"id": row["id"], "status": "ok", "output": output} for row, output in zip(truth, outputs, strict=True)]
    lines[2]["status"] = "invalid"
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = score("orders", result_of(tmp_path))
    assert (found.right, found.rows) == (len(truth) - 3, len(truth))
    assert found.share == pytest.approx((len(truth) - 3) / len(truth))


def test_a_run_without_results_has_no_right_answer(tmp_path: Path) -> None:
    assert score("numbers", result_of(tmp_path, "stopped")).right == 0
    assert Score("none", 0, 0, result_of(tmp_path)).share == 0


@pytest.mark.vllm
def test_with_the_real_model_nearly_every_answer_is_right_and_every_line_has_its_record(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmbatch.cli", "demo", "--output", str(tmp_path / "demo")]
    environment = {**os.environ, "COLUMNS": "120"}
    environment.pop("TORCHDYNAMO_DISABLE", None)  # with everything as a user's is
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in JOBS:
        folder = tmp_path / "demo" / name
        found = score(name, result_of(folder))
        assert found.share >= 0.95
        assert f"{found.right} of {found.rows}" in done.stdout
        check_rows(name, folder)
