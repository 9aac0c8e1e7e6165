"""``llmbatch.spark`` on a real, local Spark, with the scripted engine; skipped where pyspark is not installed.

It runs in the environment of the peer: ``.venv-spark/bin/python -m pytest tests/integrations/test_spark_sql.py``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmbatch
from llmbatch.core.errors import JobError, UsageError

pytest.importorskip(
    "pyspark", reason="pyspark is not installed here: make .venv-spark/ready makes an environment that has it"
)

EXAMPLES = Path(__file__).parents[1] / "examples" / "databricks"
TEXTS = ["one loaf of rye", "two jars of plum jam", "three wool scarves", None]
ENGINE = {"name": "scripted"}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    local = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[2]")
    for key, value in local.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    session.read.json(str(EXAMPLES / "reviews.jsonl")).createOrReplaceTempView("reviews")
    rules = [
        {"when": {"contains": "refuse"}, "fail": "this one is refused"},
        {"when": {"contains": "five"}, "answer": "5"},
    ]
    profiles = {"both": {"model": "demo", "engine": ENGINE, "prompt": "{{ a }} and {{ b }}"}}
    llmbatch.spark.register(
        session, model="demo", engine={**ENGINE, "args": {"rules": rules}}, profiles=profiles, idle=5
    )
    yield session
    session.stop()


def rows(spark: Any, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in llmbatch.spark.sql(spark, statement).collect()]


def test_before_anything_is_registered_it_is_said_what_is_missing(spark: Any) -> None:
    with pytest.raises(JobError, match=r"llmbatch\.spark\.register"):
        llmbatch.spark.sql(spark.newSession(), "SELECT 1")


def test_the_examples_run_unchanged_through_spark_sql_itself(spark: Any) -> None:
    llmbatch.spark.enable(spark)
    lines = [line for line in (EXAMPLES / "queries.sql").read_text().splitlines() if not line.startswith("--")]
    found = [spark.sql(each).collect() for each in "\n".join(lines).split(";") if each.strip()]
    assert [tuple(row) for row in found[0]] == [(n, text and f"Repeat: {text}") for n, text in enumerate(TEXTS)]
    assert [tuple(row) for row in found[1]] == list(enumerate(TEXTS))
    assert [tuple(row) for row in found[2]] == [(n, text, None) for n, text in enumerate(TEXTS)]
    assert [[row.answer and set(json.loads(row.answer)) for row in each] for each in found[3:]] == [
        [set(), set(), set(), None], [{"item"}] * 3 + [None], [{"item", "quantity"}] * 3 + [None],
    ]  # fmt: skip
    assert spark._llmbatch.executors()[0].engine_starts == 1
    assert llmbatch.spark.sql(spark, "SELECT 1 AS one").collect()[0].one == 1


def test_a_row_without_an_answer_says_why_and_fails_the_query_unless_told_not_to(spark: Any) -> None:
    table = "(VALUES ('a'), ('refuse me'), (NULL)) AS t(text)"
    query = f"SELECT ai_query('demo', text, failOnError => false) AS r FROM {table}"  # noqa: S608
    ((good,), (bad,), (null,)) = rows(spark, query)
    assert (good.result, good.errorMessage, null) == ("a", None, None)
    assert bad.result is None and bad.errorMessage == "engine: this one is refused"
    with pytest.raises(Exception, match=r"1 of . rows of a batch have no answer"):
        rows(spark, f"SELECT ai_query('demo', text) FROM {table}")  # noqa: S608


def test_answers_are_of_the_type_that_is_asked_for(spark: Any) -> None:
    ((number, struct, extracted),) = rows(
        spark,
        "SELECT ai_query('demo', 'five', 'INT') + 1, ai_query('demo', 'x', returnType => 'STRUCT<a: INT, b: ARRAY<STRING>>'), "
        "ai_extract('Ann in Rome', array('person', 'place'))",
    )
    assert number == 6 and set(struct.asDict()) == {"a", "b"} and set(extracted.asDict()) == {"person", "place"}
    ((wrong,),) = rows(spark, "SELECT ai_query('demo', 'six', 'INT', failOnError => false)")
    assert wrong.result is None and "six" in wrong.errorMessage


def test_a_struct_is_the_variables_of_a_profiles_prompt(spark: Any) -> None:
    query = "SELECT ai_query('both', named_struct('a', text, 'b', 0.5)) FROM reviews WHERE id = 0"
    assert rows(spark, query) == [("one loaf of rye and 0.5",)]


def test_a_request_that_is_no_text_is_refused_with_what_to_write(spark: Any) -> None:
    with pytest.raises(Exception, match=r"a request is a STRING or a STRUCT, .* CAST"):
        rows(spark, "SELECT ai_query('demo', id) FROM reviews")


def test_a_profile_may_be_a_job_file(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "prompt.yaml").write_text("name: shout\nvariables: {text: {type: string}}\ntext: '{{ text }}!'\n")
    job = tmp_path / "job.yaml"
    job.write_text("{model: demo, engine: {name: scripted}, prompt: prompt.yaml, input: rows.jsonl, output: run}")
    session = spark.newSession()
    llmbatch.spark.register(session, model="demo", engine=ENGINE, profiles={"shouted": job})
    assert [tuple(row) for row in llmbatch.spark.sql(session, "SELECT ai_query('shouted', 'a')").collect()] == [("a!",)]


def test_what_is_registered_works_without_rewriting_too(spark: Any) -> None:
    reviews = spark.table("reviews")
    asked = reviews.selectExpr(
        "ai_query('demo', text, modelParameters => named_struct('max_tokens', 5, 'temperature', 0.0)) AS a"
    )
    assert [row.a for row in asked.collect()] == ["one l", "two j", "three", None]
    struct = reviews.selectExpr("ai_query_struct(request => text, endpoint => 'demo').result AS a")
    assert [row.a for row in struct.collect()] == TEXTS
    tasks = reviews.selectExpr("ai_classify(text, array('food', 'clothes')) AS a", "ai_gen(text) AS b").collect()
    assert tasks[0].a in ("food", "clothes") and tasks[0].b == TEXTS[0] and tasks[3].a is None
    with pytest.raises(Exception, match="there is no argument 'temprature'"):
        reviews.selectExpr("ai_query('demo', text, temprature => 1)").collect()


def test_a_call_that_is_wrong_starts_no_query(spark: Any) -> None:
    with pytest.raises(UsageError, match="modelParameters: 'temprature' is not known"):
        llmbatch.spark.sql(
            spark, "SELECT ai_query('demo', text, modelParameters => named_struct('temprature', 1)) FROM nowhere"
        )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"errors": "all"}, "errors: is one of last, strict"),
        ({"profiles": {"demo": {"model": "demo"}}}, "'demo' is the name of the model already"),
        ({"profiles": {"other": {"prompt": "x"}}}, "profiles.other: model is missing"),
        ({"accept": {"rows": 3}}, "accept: has no place here"),
        ({"engine": {"name": "no"}}, "demo: .*no"),
        ({"prompt": "{{ x"}, "demo: "),
    ],
    ids=["errors", "twice", "model", "accept", "engine", "prompt"],
)
def test_what_is_wrong_with_a_model_or_profile_is_said_when_it_is_registered(
    spark: Any, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        llmbatch.spark.register(spark.newSession(), **{"model": "demo", "engine": ENGINE, **given})


def test_a_frame_is_run_and_joined_by_its_ids_and_goes_on(spark: Any, tmp_path: Path) -> None:
    frame = spark.createDataFrame([(f"r{n}", f"text {n}") for n in range(50)], "key STRING, text STRING").repartition(3)
    how: dict[str, Any] = {
        "id": "key", "model": "demo", "engine": ENGINE, "prompt": "{{ text }}!", "output": tmp_path / "run", "prefix": "x_",
    }  # fmt: skip
    first = sorted(map(tuple, llmbatch.spark.run(frame, **how).collect()))
    assert first == sorted((f"r{n}", f"text {n}", f"text {n}!", "ok", None) for n in range(50))
    assert sorted(map(tuple, llmbatch.spark.run(frame, **how).collect())) == first
    with pytest.raises(JobError, match="holds other rows"):
        llmbatch.spark.run(frame.limit(3), **how)


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        ("key STRING, text STRING", {"id": "no"}, "there is no column 'no'"),
        ("key STRING, response STRING", {}, "response; give a prefix"),
        ("key DOUBLE, text STRING", {}, "key is of type double"),
        ("key STRING, id STRING", {}, "there is a column id besides"),
        ("key STRING, text STRING", {"rows": [("a", "1"), (None, "2")]}, "1 or more rows have no key"),
        ("key STRING, text STRING", {"rows": [("a", "1"), ("a", "2")]}, "key is not different in every row: 'a'"),
    ],
    ids=["unknown", "column", "type", "besides", "missing", "twice"],
)
def test_a_frame_whose_rows_cannot_be_named_is_refused(
    spark: Any, tmp_path: Path, columns: str, given: dict[str, Any], said: str
) -> None:
    frame = spark.createDataFrame(given.pop("rows", []), columns)
    with pytest.raises(JobError, match=said):
        llmbatch.spark.run(frame, **{"id": "key", "model": "demo", "output": tmp_path / "run", "prompt": "x", **given})
