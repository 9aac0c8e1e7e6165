"""Results and truth as the tables of MLflow's evaluations; MLflow itself is not needed for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch import run
from llmbatch.core.errors import JobError, SourceError
from llmbatch.integrations.mlflow_tables import evaluation_table, genai_data

TRUTH = {"a": "one", "b": {"x": 1}}


@pytest.fixture
def done(tmp_path: Path) -> Any:
    rules = [{"when": {"contains": "two"}, "fail": "no such luck"}]
    rows = [{"id": "a", "text": "one", "lang": "en"}, {"id": "b", "text": "two", "lang": "de"}]
    return run(
        model="any", prompt="{{ text }}", input=rows, output=tmp_path / "out", sinks={"keep": ["lang", "id"]},
        engine={"name": "scripted", "args": {"rules": rules}},
    )  # fmt: skip


@pytest.mark.parametrize("form", ["mapping", "objects", "file"])
def test_each_record_is_a_row_with_what_was_expected(done: Any, tmp_path: Path, form: str) -> None:
    lines = [{"key": key, "wanted": value} for key, value in TRUTH.items()]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    truth = {"mapping": TRUTH, "objects": lines, "file": tmp_path / "truth.jsonl"}[form]
    table = evaluation_table(done, truth, id_field="key", field="wanted")
    assert table[["id", "output", "expected", "lang"]].values.tolist() == [
        ["a", "one", "one", "en"],
        ["b", "", '{"x": 1}', "de"],
    ]
    assert table["error"][0] is None or table["error"].isna()[0]
    assert table["error"][1].startswith("engine: ")
    assert evaluation_table(done.folder, TRUTH).equals(table)


def test_for_genai_each_has_inputs_outputs_and_expectations(done: Any) -> None:
    first, second = genai_data(done, {"a": "one"})
    assert first == {
        "inputs": {"id": "a", "lang": "en"}, "outputs": "one", "expectations": {"expected_response": "one"}
    }  # fmt: skip
    assert (second["outputs"], second["expectations"]) == (None, {})


def test_a_record_without_truth_is_told(done: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="1 of 2 rows have no truth, such as 'b'"):
        evaluation_table(done, {"a": "one"})
    with pytest.raises(SourceError, match="the truth:1: is no object with 'id' and 'output'"):
        evaluation_table(done, [{"a": 1}])
    with pytest.raises(SourceError, match="cannot be read as JSON Lines"):
        evaluation_table(done, tmp_path / "gone.jsonl")


def test_a_line_of_the_truth_ends_at_a_line_feed_alone_and_is_counted_as_in_the_file(done: Any, tmp_path: Path) -> None:
    path, said = tmp_path / "truth.jsonl", "one\u2028more\x85"
    good = [json.dumps({"id": name, "output": said}, ensure_ascii=False) + "\n" for name in "ab"]
    path.write_text(good[0] + "\n" + good[1], encoding="utf-8")
    assert evaluation_table(done, path)["expected"].tolist() == [said, said]
    for bad, why in (
        ("{", "cannot be read"),
        ("{}", "is no object with"),
        ('{"id": [1], "output": 1}', "an id is a text"),
    ):
        path.write_text(good[0] + "\n" + bad + "\n", encoding="utf-8")
        with pytest.raises(SourceError, match=f"truth.jsonl:3: .*{why}"):
            evaluation_table(done, path)
