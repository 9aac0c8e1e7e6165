"""Statements as Databricks has them, rewritten for open-source Spark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import UsageError
from llmbatch.integrations.spark.base import Endpoints

pytest.importorskip("sqlglot")

from llmbatch.integrations.spark.rewriting import rewritten

ENDPOINTS = Endpoints({"demo": {"model": "demo", "engine": {"name": "scripted"}}}, "demo")
QUERIES = Path(__file__).parents[1] / "examples" / "databricks" / "queries.sql"


def text(statement: str) -> str:
    """Rewritten, with the digests of the functions' names left out."""
    return re.sub(r"llmbatch_(\w+?)_[0-9a-f]{16}", r"llmbatch_\1", rewritten(statement, ENDPOINTS).text)


def statements() -> list[str]:
    lines = [line for line in QUERIES.read_text().splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";") if each.strip()]


def test_the_examples_become_functions_of_the_request_alone() -> None:
    found = [text(statement) for statement in statements()]
    assert found[0] == "SELECT id, llmbatch_ai_query('Repeat: ' || text) AS answer FROM reviews"
    assert found[1] == "SELECT id, llmbatch_ai_query(text) AS answer FROM reviews"
    assert found[2].startswith(
        "SELECT id, r.result, r.errorMessage FROM (SELECT id, transform(array(llmbatch_ai_query(text)), llmbatch_x -> "
    )
    assert found[3:] == ["SELECT llmbatch_ai_query(text) AS answer FROM reviews"] * 3


def test_what_the_examples_ask_is_in_their_calls() -> None:
    calls = [next(iter(rewritten(statement, ENDPOINTS).calls.values())) for statement in statements()]
    assert calls[1].job["sampling"] == {"max_tokens": 64, "temperature": 0.0}
    assert [call.fails for call in calls] == [True, True, False, True, True, True]
    assert [call.job.get("answer", {}).get("schema", {}).get("required") for call in calls[3:]] == [
        None,
        ["item"],
        ["item", "quantity"],
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'ai_query(1)' AS a",
        "SELECT ai_query FROM t",
        "SELECT `ai_query`(1) FROM t",
        "SELECT other.ai_query('demo', a) FROM t",
        "SELECT 1 -- ai_query('demo', text)\nFROM t",
        "SELECT 'not closed, ai_query(",
        "SELECT 1",
    ],
    ids=["text", "column", "quoted", "elsewhere", "comment", "broken", "nothing"],
)
def test_what_is_no_call_stays_as_it_is(statement: str) -> None:
    assert text(statement) == statement


def test_a_column_without_a_name_is_called_as_it_was_written() -> None:
    assert text("SELECT ai_query('demo', a), upper(ai_gen(a)), ai_gen(a) b FROM t WHERE ai_gen(a) = 'x'") == (
        "SELECT llmbatch_ai_query(a) AS `ai_query('demo', a)`, upper(llmbatch_ai_gen(a)), llmbatch_ai_gen(a) b "
        "FROM t WHERE llmbatch_ai_gen(a) = 'x'"
    )


def test_what_is_not_ascii_moves_nothing() -> None:
    assert (
        text("SELECT 'ö 日本 😀', ai_gen(a) AS x, 'ü' FROM t")
        == "SELECT 'ö 日本 😀', llmbatch_ai_gen(a) AS x, 'ü' FROM t"
    )


def test_calls_in_a_request_are_rewritten_too() -> None:
    assert text("SELECT ai_query('demo', concat(ai_summarize(a, 5), '?')) AS x FROM t") == (
        "SELECT llmbatch_ai_query(concat(llmbatch_ai_summarize(a), '?')) AS x FROM t"
    )


def test_equal_calls_share_a_function_and_others_do_not() -> None:
    found = rewritten("SELECT ai_gen(a) AS a, ai_gen(b) AS b, ai_summarize(a) AS c FROM t", ENDPOINTS)
    assert len(found.calls) == 2


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("ai_query('demo', a, 'INT')", "CAST(llmbatch_ai_query(a) AS INT)"),
        ("ai_query('demo', a, returnType => 'STRUCT<x: INT>')", "from_json(llmbatch_ai_query(a), 'STRUCT<x: INT>')"),
        (
            "ai_query('demo', a, returnType => schema_of_json('{\"x\": 1}'))",
            "from_json(llmbatch_ai_query(a), schema_of_json('{\"x\": 1}'))",
        ),
        (
            "ai_extract(a, array('x', 'the y'))",
            "from_json(llmbatch_ai_extract(a), 'STRUCT<`x`: STRING, `the y`: STRING>')",
        ),
        ("ai_classify(a, array('x', 'y'))", "llmbatch_ai_classify(a)"),
    ],
    ids=["scalar", "struct", "schema_of_json", "extract", "classify"],
)
def test_a_call_has_the_type_that_it_asks_for(call: str, wanted: str) -> None:
    assert text(f"SELECT {call} AS r FROM t") == f"SELECT {wanted} AS r FROM t"  # noqa: S608


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("named_struct('stop', array('a', 'b'))", {"stop": ["a", "b"]}),
        ("named_struct('presence_penalty', -0.5)", {"presence_penalty": -0.5}),
        ("named_struct('temperature', CAST(0 AS DOUBLE), 'ignore_eos', true)", {"temperature": 0, "ignore_eos": True}),
        ("named_struct('stop', 'it\\'s' || '!')", {"stop": "it's!"}),
        ("NULL", {}),
    ],
    ids=["array", "negative", "cast", "concatenated", "null"],
)
def test_literals_of_sql_are_read(literal: str, value: dict[str, Any]) -> None:
    (call,) = rewritten(f"SELECT ai_query('demo', a, modelParameters => {literal}) FROM t", ENDPOINTS).calls.values()  # noqa: S608
    assert value.items() <= call.job["sampling"].items()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("ai_query(name, a)", "endpoint is to be a literal, the same for every row, and is name"),
        ("ai_query('demo', a, failOnError => b)", "failOnError is to be a literal"),
        ("ai_query('demo', a, files => b)", "files"),
        ("ai_query('demo', a, nothing => 1)", "there is no argument 'nothing'"),
        ("ai_query('demo')", "request is missing"),
        ("ai_query('demo', , 'INT')", "request is empty"),
        ("ai_query('demo', failOnError => true, a)", "without a name comes after one with a name"),
        ("ai_query('demo', a", "parenthesis is not closed"),
        ("ai_classify(a, labels)", "labels is to be a literal"),
    ],
    ids=["endpoint", "boolean", "files", "unknown", "missing", "empty", "order", "open", "labels"],
)
def test_a_call_that_is_wrong_is_refused_before_a_query_starts(call: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rewritten(f"SELECT {call} FROM t", ENDPOINTS)  # noqa: S608
