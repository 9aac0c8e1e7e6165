"""DataFrames of pandas on the scripted engine: index, order and length stay, and each row has its answer or its error."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import llmbatch.pandas  # registers the accessor
from llmbatch.core.errors import JobError

JOB: dict[str, Any] = {"model": "any", "engine": {"name": "scripted"}, "sampling": {"temperature": 0}}


class City(BaseModel):
    name: str
    people: int | None = None


CITIES = {
    **JOB,
    "prompt": "{{ text }}",
    "schema": City,
    "engine": {
        "name": "scripted",
        "args": {
            "rules": [
                {"when": {"contains": "none"}, "answer": "no JSON"},
                {"when": {"contains": "huge"}, "answer": '{"name": "huge", "people": 100000000000000000000}'},
                {"answer": '{"name": "{text}", "people": 3}'},
            ]
        },
    },
}


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([30, 10, 10]),
        pd.Index(["a", None, "a"]),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["letter", "number"]),
        pd.date_range("2026-01-01", periods=3),
    ],
    ids=["twice", "text", "levels", "dates"],
)
def test_index_order_and_length_stay_and_the_frame_itself_too(index: pd.Index) -> None:
    frame = pd.DataFrame({"text": ["c", "a", "b"], "n": [1, 2, 3]}, index=index)
    before = frame.copy()
    found = frame.llmbatch.run(**JOB, prompt="{{ text }}{{ n }}")
    assert found.index.equals(index)
    assert found.index.names == index.names
    assert found["output"].tolist() == ["c1", "a2", "b3"]
    assert found["error"].isna().all()
    assert found.columns.tolist() == ["text", "n", "output", "error"]
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(found[["text", "n"]], before)


def test_a_row_that_fails_has_no_output_and_an_error() -> None:
    rules = [{"when": {"contains": "bad"}, "fail": "no such luck"}]
    frame = pd.DataFrame({"text": ["good", "bad", None]}, index=[5, 6, 7])
    found = frame.llmbatch.run(**{**JOB, "engine": {"name": "scripted", "args": {"rules": rules}}}, prompt="{{ text }}")
    assert found["output"].isna().tolist() == [False, True, True]
    assert found["error"].isna().tolist() == [True, False, False]
    assert "no such luck" in found["error"][6]
    assert found["error"][7].startswith("prompt: ")


@pytest.mark.parametrize(
    ("column", "seen"),
    [
        ([1.5, float("nan")], ["1.5", None]),
        ([pd.Timestamp("2026-03-04 05:06"), pd.NaT], ["2026-03-04T05:06:00", None]),
        ([datetime.date(2026, 3, 4), None], ["2026-03-04", None]),
        (pd.Categorical(["x", None]), ["x", None]),
        (pd.array([7, None], dtype="Int64"), ["7", None]),
        (pd.array([True, None], dtype="boolean"), ["true", None]),
        (pd.array(["y", None], dtype="string"), ["y", None]),
        ([Decimal("1.10"), None], ["1.10", None]),
        ([pd.Timedelta("90s"), pd.NaT], ["90.0", None]),
        (pd.period_range("2026-01", periods=2, freq="M"), ["2026-01", "2026-02"]),
        ([["a", ["b"]], []], ['["a", ["b"]]', "[]"]),
        ([{"k": 1}, {}], ['{"k": 1}', "{}"]),
    ],
    ids=[
        "nan",
        "nat",
        "date",
        "category",
        "Int64",
        "boolean",
        "string",
        "decimal",
        "timedelta",
        "period",
        "lists",
        "dicts",
    ],
)
def test_a_value_of_any_type_is_a_variable_and_a_missing_one_is_null(column: Any, seen: list[str | None]) -> None:
    found = pd.DataFrame({"v": column}).llmbatch.run(**JOB, prompt="{{ v }}")
    assert [None if pd.isna(output) else output for output in found["output"]] == seen
    for output, error in zip(seen, found["error"], strict=True):
        assert pd.isna(error) if output is not None else "the variable 'v' is null" in error


def test_answers_by_a_schema_are_objects_or_columns_with_types() -> None:
    frame = pd.DataFrame({"text": ["Oslo", "none", "huge"]}, index=list("abc"))
    found = frame.llmbatch.run(**CITIES, retry={"max_attempts": 1})
    assert found["output"].tolist() == [{"name": "Oslo", "people": 3}, None, None]
    assert found["error"]["b"].startswith("invalid_json: ")
    assert "64 bits" in found["error"]["c"]
    wide = frame.llmbatch.run(**CITIES, retry={"max_attempts": 1}, expand=True)
    assert wide.columns.tolist() == ["text", "name", "people", "error"]
    assert wide["people"].dtype == "Int64"
    assert wide["people"].tolist() == [3, pd.NA, pd.NA]
    assert wide["name"]["a"] == "Oslo"


def test_a_frame_without_rows_has_the_columns_and_starts_no_engine() -> None:
    frame = pd.DataFrame({"text": pd.Series([], dtype="str")})
    job = {**JOB, "engine": {"name": "scripted", "args": {"starts": 1, "out_of_memory_above": 0}}}
    assert frame.llmbatch.run(**job, prompt="{{ text }}").columns.tolist() == ["text", "output", "error"]


def test_with_output_it_is_a_run_folder_that_the_same_call_goes_on_with(
    tmp_path: Path, kill_at: Any, forked: None
) -> None:
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(10)]})
    job = {**JOB, "prompt": "{{ text }}", "output": tmp_path / "out", "run": {"window": 3}}
    kill_at("part-sealed", lambda: frame.llmbatch.run(**job))
    assert len(list((tmp_path / "out" / "parts").glob("*.jsonl"))) >= 1
    found = frame.llmbatch.run(**job)
    assert found["output"].tolist() == frame["text"].tolist()
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 10
    with pytest.raises(JobError, match="holds other rows"):
        frame.iloc[:3].llmbatch.run(**job)


@pytest.mark.parametrize(
    ("columns", "more", "said"),
    [
        (["text", "output"], {}, "the table has columns output already"),
        (["text", "text"], {}, "several columns called text"),
        (["text", "x"], {"expand": True}, "no objects with known properties"),
        (["text", "x"], {"accept": {"rows": 1}}, "every row has its place"),
        (["text", "x"], {"input": {"limit": 1}}, "the rows are the table's"),
        (["text", "x"], {"column": "error"}, "both called 'error'"),
        (["text", "x"], {"colum": "y"}, "colum"),
        (["text", "x"], {"engine": {"name": "no"}}, "no"),
    ],
    ids=["there", "twice", "expand", "accept", "input", "names", "unknown", "engine"],
)
def test_what_cannot_be_done_is_said_before_an_engine_starts(
    columns: list[str], more: dict[str, Any], said: str
) -> None:
    frame = pd.DataFrame([["a", "b"]], columns=columns)
    with pytest.raises(JobError, match=said):
        frame.llmbatch.run(**{**JOB, "prompt": "{{ text }}", **more})


def test_columns_of_several_levels_are_refused() -> None:
    frame = pd.DataFrame([["a"]], columns=pd.MultiIndex.from_tuples([("x", "text")]))
    with pytest.raises(JobError, match="several levels"):
        frame.llmbatch.run(**JOB, prompt="{{ text }}")


def test_a_program_that_is_a_function_is_taken_as_by_generate() -> None:
    def twice(row: llmbatch.RowAsk) -> llmbatch.Program:
        first = yield row.ask()
        return None if first is None else [first.value, first.value]

    found = pd.DataFrame({"text": ["a"]}).llmbatch.run(**JOB, prompt="{{ text }}", program=twice)
    assert found["output"].tolist() == ['["a", "a"]']
