"""DataFrames of polars on the scripted engine."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

pl = pytest.importorskip("polars")
import llmbatch.polars  # noqa: E402 - registers the namespace

JOB: dict[str, Any] = {"model": "any", "engine": {"name": "scripted"}, "sampling": {"temperature": 0}}


class City(BaseModel):
    name: str
    people: int


def test_order_and_length_stay_and_each_row_has_its_answer_or_error() -> None:
    rules = [{"when": {"contains": "bad"}, "fail": "no such luck"}]
    frame = pl.DataFrame({"text": ["c", "bad", "c"], "n": [1, 2, 3]})
    found = frame.llmbatch.run(
        **{**JOB, "engine": {"name": "scripted", "args": {"rules": rules}}}, prompt="{{ text }}{{ n }}"
    )
    assert found.columns == ["text", "n", "output", "error"]
    assert found["output"].to_list() == ["c1", None, "c3"]
    assert found["error"].is_null().to_list() == [True, False, True]
    assert frame.columns == ["text", "n"]


def test_answers_by_a_schema_are_a_struct_or_columns() -> None:
    engine = {"name": "scripted", "args": {"rules": [{"answer": '{"name": "{text}", "people": 3}'}]}}
    frame = pl.DataFrame({"text": ["Oslo"]})
    job = {**JOB, "engine": engine, "prompt": "{{ text }}", "schema": City}
    found = frame.llmbatch.run(**job)
    assert found.schema["output"] == pl.Struct({"name": pl.String, "people": pl.Int64})
    assert found["output"].to_list() == [{"name": "Oslo", "people": 3}]
    wide = frame.llmbatch.run(**job, expand=True)
    assert wide.rows() == [("Oslo", "Oslo", 3, None)]


@pytest.mark.parametrize(
    ("series", "seen"),
    [
        (lambda: pl.Series([1.5, float("nan"), None]), ["1.5", None, None]),
        (lambda: pl.Series([datetime.datetime(2026, 3, 4, 5, 6), None]), ["2026-03-04T05:06:00", None]),
        (lambda: pl.Series(["x", None], dtype=pl.Categorical), ["x", None]),
        (lambda: pl.Series([Decimal("1.10"), None]), ["1.10", None]),
        (lambda: pl.Series([[["a"]], []]), ['[["a"]]', "[]"]),
        (lambda: pl.Series([{"k": 1}, {"k": 2}]), ['{"k": 1}', '{"k": 2}']),
    ],
    ids=["nan", "datetime", "category", "decimal", "lists", "struct"],
)
def test_a_value_of_any_type_is_a_variable_and_a_missing_one_is_null(series: Any, seen: list[str | None]) -> None:
    found = pl.DataFrame({"v": series()}).llmbatch.run(**JOB, prompt="{{ v }}")
    assert found["output"].to_list() == seen
    assert found["error"].is_null().to_list() == [output is not None for output in seen]


def test_a_frame_without_rows_has_the_columns() -> None:
    frame = pl.DataFrame({"text": []}, schema={"text": pl.String})
    assert frame.llmbatch.run(**JOB, prompt="{{ text }}").schema == {
        "text": pl.String,
        "output": pl.String,
        "error": pl.String,
    }


def test_the_namespace_is_that_of_the_module() -> None:
    assert isinstance(pl.DataFrame().llmbatch, llmbatch.polars.LlmbatchNamespace)
