from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.job.job import job_from
from tests.examples.alike import difference_of_lines

EXAMPLES = Path(__file__).parents[1] / "examples" / "seldon"
SAYS_NO = {"rules": [{"when": {"contains": "BOOM"}, "fail": "the model says no"}]}


def data_of(jobs: Any, path: Path, format_: str, layout: dict[str, Any], *, output: str = "out", **options: Any) -> Any:
    given = {"format": format_, "options": options}
    sinks = {"layout": {"name": format_, "settings": layout}}
    data = jobs.data(path, SAYS_NO, prompt=None, model="demo", input=given, sinks=sinks, output=str(jobs.path / output))
    return {**data, "answer": {"allow_truncated": True}}


def run(jobs: Any, *given: Any, **options: Any) -> Path:
    folder: Path = jobs.run(job_from(data_of(jobs, *given, **options))).folder / "output"
    return folder


def test_v2_lines_are_answered_as_expected(jobs: Any) -> None:
    path = run(jobs, EXAMPLES / "v2.jsonl", "v2", {}) / "output.jsonl"
    assert difference_of_lines(path, EXAMPLES / "v2.expected.jsonl") is None
    seen, expected = (each.read_text().splitlines()[0] for each in (path, EXAMPLES / "v2.expected.jsonl"))
    assert json.loads(seen, object_pairs_hook=list) == json.loads(expected, object_pairs_hook=list)  # keys in order too


def test_blank_lines_count_for_the_index_of_a_batch(jobs: Any) -> None:
    first, second, *_ = (EXAMPLES / "v2.jsonl").read_text().splitlines()
    rows = jobs.rows([first, "", "", second])
    lines = (run(jobs, rows, "v2", {}) / "output.jsonl").read_text().splitlines()
    assert [json.loads(line)["parameters"]["batch_index"] for line in lines] == [0, 3]


def test_of_several_files_each_has_its_output(jobs: Any) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        jobs.rows((EXAMPLES / "v2.jsonl").read_text().splitlines(), name)
    folder = run(jobs, jobs.path / "*.jsonl", "v2", {})
    assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert all(difference_of_lines(path, EXAMPLES / "v2.expected.jsonl") is None for path in folder.iterdir())


def test_raw_messages_are_answered_as_expected(jobs: Any) -> None:
    path = run(jobs, EXAMPLES / "v1.raw.txt", "seldon", {"batch_id": "batch-1"}, data_type="raw") / "output.jsonl"
    assert difference_of_lines(path, EXAMPLES / "v1.raw.expected.txt") is None


def test_texts_are_answered_as_texts(jobs: Any) -> None:
    path = run(jobs, EXAMPLES / "v1.str.txt", "seldon", {}, data_type="str") / "output.jsonl"
    good, refused, broken = map(json.loads, path.read_text().splitlines())
    assert good["strData"] == "one loaf of rye"
    assert refused["status"]["reason"] == "the model says no"
    assert "v1.str.txt:3: not JSON" in broken["status"]["reason"]
    assert [line["meta"]["batch_index"] for line in (refused, broken)] == [1, 2]


@pytest.mark.parametrize("format_", ["v2", "seldon"])
def test_of_several_prompts_the_answers_that_were_cut_off_are_there(jobs: Any, format_: str) -> None:
    tensor = {"name": "text_input", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]}
    rows = jobs.rows([json.dumps({"inputs": [tensor]} if format_ == "v2" else [["one"], ["two"]])])
    script = {"rules": [{"when": {"contains": "two"}, "answer": "tw", "finish_reason": "length"}]}
    given = {"input": {"format": format_}, "sinks": {"layout": {"name": format_}}}
    folder = jobs.run(job_from(jobs.data(rows, script, prompt=None, model="demo", **given))).folder / "output"
    [line] = map(json.loads, (folder / "output.jsonl").read_text().splitlines())
    said = line["outputs"][0]["data"] if format_ == "v2" else line["data"]["ndarray"]
    assert said == (["one", "tw"] if format_ == "v2" else [["one"], ["tw"]])
