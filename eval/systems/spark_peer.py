"""Prints what ``llmbatch.spark`` shows on a local Spark, a row a line: the six statements of the examples, many rows, kills.

spark_peer.py [--rows N] [--only WORD]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.append(str(Path(__file__).parent))

from shown import EXAMPLES, tried, version_of

import llmbatch
from llmbatch.core.errors import UsageError
from llmbatch.integrations.spark.wire import Facts

SYSTEM = "Databricks, Spark"
ROWS = 100_000
_FOLDER = EXAMPLES / "databricks"
_SCRIPTED = {"name": "scripted"}
_REFUSING = {"rules": [{"when": {"contains": "scarves"}, "fail": "this engine has no scarves"}]}
_PATIENCE_SECONDS = 120.0
CLUSTER = "local-cluster[2,1,1024]"  # a master, and two workers with an executor each, of a core and so many MiB


def statements() -> list[str]:
    """Those of ``queries.sql``, as they are."""
    lines = [line for line in (_FOLDER / "queries.sql").read_text().splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";") if each.strip()]


@contextmanager
def session(master: str = "local[2,4]", **settings: str) -> Iterator[Any]:
    """A Spark of this machine, by default of two cores in one process, that listens on the loopback address alone."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(master).appName("llmbatch")
    common = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2", "spark.sql.warehouse.dir": tempfile.mkdtemp(),
    }  # fmt: skip
    for key, value in {**common, **settings}.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    spark.read.json(str(_FOLDER / "reviews.jsonl")).createOrReplaceTempView("reviews")
    try:
        yield spark
    finally:
        spark.stop()


def hosts() -> list[psutil.Process]:
    """The processes that hold engines, of Sparks of this process."""
    return [
        each
        for each in psutil.process_iter()
        if "llmbatch.integrations.spark.host" in _command(each) and _is_ours(each)
    ]


def counts_of_hosts() -> list[dict[str, int]]:
    """What each of them has counted; with what one counted that was killed, and whose place it took."""
    found: list[dict[str, int]] = []
    for host in hosts():
        counts: Counter[str] = Counter()
        for line in (Path(json.loads(_command(host)[-1])["folder"]) / "counts.jsonl").read_text().splitlines():
            name, number = json.loads(line)
            counts[name] += number
        found.append(counts)
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def _is_ours(host: psutil.Process) -> bool:
    """Where executors are processes of their own, of one of those: a host of the driver is left of the session before."""
    executor = json.loads(_command(host)[-1])["executor"][0]
    ours = {child.pid: _command(child) for child in psutil.Process().children(recursive=True)}
    apart = {pid for pid, command in ours.items() if any("CoarseGrainedExecutorBackend" in part for part in command)}
    return executor in (apart or ours)


def on_echo(spark: Any) -> str:
    """The six statements with an engine that answers with the prompt."""
    found = [[tuple(row) for row in spark.sql(statement).collect()] for statement in statements()]
    texts = ["one loaf of rye", "two jars of plum jam", "three wool scarves", None]
    assert found[0] == [(n, text and f"Repeat: {text}") for n, text in enumerate(texts)], found[0]
    assert found[1] == list(enumerate(texts)), found[1]
    assert found[2] == [(n, text, None) for n, text in enumerate(texts)], found[2]
    for rows, keys in zip(found[3:], ((), ("item",), ("item", "quantity")), strict=True):
        assert rows[3] == (None,), rows
        assert all(set(json.loads(row[0])) >= set(keys) for row in rows[:3]), rows
    (facts,) = spark._llmbatch.executors()
    assert facts.engine_starts == 1, facts
    return f"{len(found)} statements; NULL stays NULL; engine starts: {facts.engine_starts}"


def on_refusing(spark: Any) -> str:
    """The third statement, where the engine refuses a row; and the second, which that row fails."""
    rows = [tuple(row) for row in spark.sql(statements()[2]).collect()]
    assert [row[1] for row in rows] == ["one loaf of rye", "two jars of plum jam", None, None], rows
    assert [row[2] is None for row in rows] == [True, True, False, True] and "no scarves" in rows[2][2], rows
    said = ""
    try:
        spark.sql(statements()[1]).collect()
    except Exception as error:
        said = str(error)
    assert "no scarves" in said, said or "a row without an answer did not fail the query"
    return f"errorMessage: {rows[2][2]}; failOnError => true fails the query"


def on_tasks(spark: Any) -> str:
    """The task functions, with types as Databricks has them; and as functions of a DataFrame without rewriting."""
    row = spark.sql(
        "SELECT ai_classify(text, array('food', 'clothes')) AS c, ai_extract(text, array('item', 'number')) AS e, "
        "ai_summarize(text, 20) AS s, ai_translate(text, 'de') AS t, ai_gen(text) AS g, ai_gen(CAST(NULL AS STRING)) AS n "
        "FROM reviews WHERE id = 0"
    ).collect()[0]
    assert row.c in ("food", "clothes") and set(row.e.asDict()) == {"item", "number"} and row.g == "one loaf of rye", (
        row
    )
    assert row.n is None
    plain = spark.table("reviews").selectExpr(
        "ai_query('demo', text, modelParameters => named_struct('max_tokens', 9)) AS a"
    )
    assert [each.a for each in plain.collect()][3] is None
    return "ai_classify, ai_extract (STRUCT), ai_summarize, ai_translate, ai_gen; ai_query in selectExpr"


def on_types(spark: Any) -> str:
    """``returnType`` as a text and as a ``schema_of_json``: the columns' types, and a value of each."""
    found = spark.sql(
        "SELECT ai_query('demo', '41', returnType => 'INT') + 1 AS i, "
        "ai_query('demo', text, 'STRUCT<item: STRING, quantity: INT>') AS s, "
        """ai_query('demo', text, returnType => schema_of_json('{"item": "a", "quantity": 1}')) AS j, """
        "ai_query('demo', text, 'INT', failOnError => false) AS e FROM reviews WHERE id = 0"
    )
    types = {field.name: field.dataType.simpleString() for field in found.schema}
    assert types == {
        "i": "int", "s": "struct<item:string,quantity:int>", "j": "struct<item:string,quantity:bigint>",
        "e": "struct<result:int,errorMessage:string>",
    }, types  # fmt: skip
    (row,) = found.collect()
    assert row.i == 42 and isinstance(row.s.item, str) and isinstance(row.s.quantity, int) and row.j is not None, row
    assert row.e.result is None and row.e.errorMessage, row
    return f"{', '.join(types.values())}; an answer that is no INT: {row.e.errorMessage!r}"


def on_refusals(spark: Any) -> str:
    """Calls that are wrong, each refused by the name of its argument before a query starts."""
    wrong = {
        "ai_query('demo', text, temprature => 1)": "temprature",
        "ai_query('demo', text, modelParameters => named_struct('temprature', 1))": "temprature",
        "ai_query('demo', text, files => text)": "files",
        "ai_query('demo', text, responseFormat => '{\"type\": \"xml\"}')": "responseFormat",
        "ai_query('nobody', text)": "nobody",
        "ai_query('demo')": "request",
    }
    for call, said in wrong.items():
        refusal = ""
        try:
            llmbatch.spark.sql(spark, f"SELECT {call} FROM reviews")  # noqa: S608
        except UsageError as error:
            refusal = str(error)
        assert said in refusal, (call, refusal)
    return f"{len(wrong)} wrong calls"


def many(spark: Any, rows: int) -> str:
    """So many rows in one statement."""
    before = _starts(spark)
    began = time.monotonic()
    query = f"SELECT id, ai_query('demo', concat('row ', id)) AS a FROM range(0, {rows}, 1, 8)"  # noqa: S608
    wrong = spark.sql(f"SELECT count_if(a = concat('row ', id)) AS good, count(*) AS all FROM ({query})").collect()[0]  # noqa: S608
    seconds = time.monotonic() - began
    assert tuple(wrong) == (rows, rows), wrong
    return f"{rows:,} rows, {rows / seconds:,.0f} rows/s; engine starts besides: {_starts(spark) - before}"


def killed(spark: Any, rows: int) -> str:
    """The host killed -9 in the middle of a statement, once."""
    before = _starts(spark)
    done: list[Any] = []
    query = f"SELECT ai_query('slow', concat('killed ', id)) AS a, id FROM range(0, {rows}, 1, 4)"  # noqa: S608

    def ask() -> None:
        done.extend(spark.sql(f"SELECT count_if(a = concat('killed ', id)), count(*) FROM ({query})").collect())  # noqa: S608

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(3)
    (host,) = hosts()
    os.kill(host.pid, signal.SIGKILL)
    thread.join(_PATIENCE_SECONDS)
    assert [tuple(row) for row in done] == [(rows, rows)], done
    starts = _starts(spark) - before
    assert starts == 2, starts
    return f"{rows:,} rows, all there and right; engine starts: {starts}"


def tried_again(spark: Any, rows: int) -> str:
    """The Python workers killed -9 in the middle of their tasks, which Spark runs again."""
    before = _facts(spark)
    done: list[Any] = []
    query = f"SELECT ai_query('slower', concat('again ', id)) AS a, id FROM range(0, {rows}, 1, 2)"  # noqa: S608
    whole = f"SELECT count_if(a = concat('again ', id)), count(*) FROM ({query})"  # noqa: S608
    thread = threading.Thread(target=lambda: done.extend(spark.sql(whole).collect()))
    (host,) = hosts()
    counts = Path(json.loads(_command(host)[-1])["folder"]) / "counts.jsonl"
    known = counts.read_text().count("engine_starts")
    thread.start()
    while counts.read_text().count("engine_starts") == known and thread.is_alive():
        time.sleep(0.1)  # until the other profile's engine is up
    time.sleep(2)
    daemons = [each for each in psutil.Process().children(recursive=True) if "pyspark.daemon" in _command(each)]
    for worker in daemons:
        if worker.parent() in daemons:
            os.kill(worker.pid, signal.SIGKILL)
    thread.join(_PATIENCE_SECONDS)
    assert [tuple(row) for row in done] == [(rows, rows)], done
    after = _facts(spark)
    assert after.engine_starts - before.engine_starts <= 1, after
    reused = after.reused - before.reused
    assert reused > 0, after
    return f"{rows:,} rows, all there and right; {reused:,} of them, asked again, took answers that were there or on their way"


def cancelled(spark: Any, rows: int) -> str:
    """A statement that is cancelled in the middle: what its tasks had asked is taken back, and the engine has room again."""
    query = f"SELECT ai_query('slower', concat('cancelled ', id)) AS a FROM range(0, {rows}, 1, 2)"  # noqa: S608
    said: list[str] = []

    def ask() -> None:
        try:
            spark.sql(query).collect()
        except Exception as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    spark.sql("SELECT ai_query('slower', 'before it')").collect()
    before = _given_up()
    thread.start()
    time.sleep(4)
    spark.sparkContext.cancelAllJobs()
    thread.join(_PATIENCE_SECONDS)
    assert said and "cancel" in said[0].lower(), said or "it was not cancelled"
    began = time.monotonic()
    while _given_up() == before and time.monotonic() - began < _PATIENCE_SECONDS:
        time.sleep(0.1)
    took = time.monotonic() - began
    spark.sql("SELECT ai_query('slower', concat('after it ', id)) AS a FROM range(2)").collect()
    given_up = _given_up() - before
    assert rows >= given_up > rows // 4, given_up
    return f"the requests of {given_up:,} of {rows:,} rows were taken back, {took:.1f} s after the statement had ended"


def _given_up() -> int:
    """Requests that were taken back so far, of the only host."""
    (counts,) = counts_of_hosts()
    return counts["given_up"]


def remembered(spark: Any) -> str:
    """A statement again after its host was killed: the answers are in the cache, and no engine is started for them."""
    query = "SELECT ai_query('demo', concat('again ', id)) AS a FROM range(0, 2000, 1, 2)"
    first = spark.sql(query).collect()
    before = _starts(spark)
    for host in hosts():
        os.kill(host.pid, signal.SIGKILL)
    assert spark.sql(query).collect() == first
    assert _starts(spark) == before, (before, _starts(spark))
    return "2,000 rows asked again: the same answers, engine starts for them: 0"


def joined(spark: Any) -> str:
    """``llmbatch.spark.run``: collect, run, join; the second call finds it finished."""
    output = Path(tempfile.mkdtemp()) / "run"
    df = spark.createDataFrame([(f"r{n}", f"text {n}") for n in range(500)], "key STRING, text STRING").repartition(3)
    how = {"id": "key", "model": "demo", "engine": _SCRIPTED, "prompt": "{{ text }}", "output": output}
    first = sorted(map(tuple, llmbatch.spark.run(df, **how).collect()))
    assert [row[2] for row in first] == [row[1] for row in first] and len(first) == 500, first[:3]
    assert sorted(map(tuple, llmbatch.spark.run(df, **how).collect())) == first
    sessions = json.loads((output / "report.json").read_text())["sessions"]
    return f"500 rows joined by key; called again: the same (sessions in its report: {len(sessions)})"


def on_model(spark: Any) -> str:
    """The six statements with a real model on vLLM."""
    found = [[tuple(row) for row in spark.sql(statement).collect()] for statement in statements()]
    assert all(len(rows) == 4 and rows[3][-1 if n < 2 or n > 2 else 1] is None for n, rows in enumerate(found)), found
    assert all(row[1] for row in found[0][:3]), found[0]
    # JSON that is cut off is given as it came
    assert all(row[0].lstrip().startswith("{") for rows in found[3:] for row in rows[:3]), found[3:]
    (facts,) = spark._llmbatch.executors()
    assert facts.engine_starts == 1, facts
    return f"6 statements; NULL stays NULL; engine starts: {facts.engine_starts}; an answer: {found[0][1][1][:60]!r}"


def on_executors(spark: Any, rows: int) -> str:
    """So many rows on executors that are processes of their own; then one of these is killed -9 in the middle of a statement."""
    query = f"SELECT id, ai_query('demo', concat('row ', id)) AS a FROM range(0, {rows}, 1, 8)"  # noqa: S608
    whole = f"SELECT count_if(a = concat('row ', id)), count(*) FROM ({query})"  # noqa: S608
    assert tuple(spark.sql(whole).collect()[0]) == (rows, rows)
    each = spark._llmbatch.executors()
    assert [facts.engine_starts for facts in each] == [1, 1], each
    assert sum(facts.rows for facts in each) == rows and all(facts.rows for facts in each), each
    return (
        f"{rows:,} rows on {len(each)} executors; engine starts: {', '.join(str(facts.engine_starts) for facts in each)}; rows: "
        + (", ".join(f"{facts.rows:,}" for facts in each))
    )


def executor_killed(spark: Any, rows: int) -> str:
    """One of the executors killed -9 in the middle of a statement: its host goes with it, and another takes its place."""
    query = f"SELECT id, ai_query('slow', concat('lost ', id)) AS a FROM range(0, {rows}, 1, 4)"  # noqa: S608
    whole = f"SELECT count_if(a = concat('lost ', id)), count(*) FROM ({query})"  # noqa: S608
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.extend(spark.sql(whole).collect()))
    before = {int(json.loads(_command(host)[-1])["executor"][0]): host for host in hosts()}
    thread.start()
    time.sleep(5)
    pid, host = next(iter(before.items()))
    os.kill(pid, signal.SIGKILL)
    thread.join(_PATIENCE_SECONDS)
    assert [tuple(row) for row in done] == [(rows, rows)], done
    assert not _command(host), "its host lives on"
    after = spark._llmbatch.executors()
    return (
        f"{rows:,} rows, all there and right; executors that told of themselves so far: {len(after)}, engine starts: "
        + (", ".join(str(facts.engine_starts) for facts in after))
    )


def _facts(spark: Any) -> Facts:
    """Of the only executor."""
    return next(iter(spark._llmbatch.executors()), Facts("", 0, 0, 0, 0))


def _starts(spark: Any) -> int:
    return _facts(spark).engine_starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", default="", help="only claims with this word")
    given = parser.parse_args()
    number = version_of("pyspark")

    def claim(text: str, show: Callable[[], str]) -> None:
        if given.only in text:
            print(tried(SYSTEM, text, f"pyspark, {spark.sparkContext.master}", number, show).as_line(), flush=True)

    profiles = {
        name: {"model": "demo", "engine": {"name": "scripted", "args": {"latency": 0.02, "concurrency": number}}}
        for name, number in (("slow", 16), ("slower", 12))
    }
    with session() as spark:
        llmbatch.spark.register(spark, model="demo", engine=_SCRIPTED, profiles=profiles)
        llmbatch.spark.enable(spark)
        claim("the six statements run unchanged (scripted engine, echo)", lambda: on_echo(spark))
        claim("the task functions have Databricks' types (scripted engine)", lambda: on_tasks(spark))
        claim("an answer is of its returnType: INT, STRUCT, schema_of_json (scripted engine)", lambda: on_types(spark))
        claim("what is wrong with a call is refused by name before a query starts", lambda: on_refusals(spark))
        claim("many rows of ai_query, one engine an executor (scripted engine)", lambda: many(spark, given.rows))
        claim(
            "an executor's engine host killed in the middle costs no row (scripted engine)", lambda: killed(spark, 8000)
        )
        claim(
            "a task that Spark runs again takes the answers that are there (scripted engine)",
            lambda: tried_again(spark, 8000),
        )
        claim("a cancelled statement takes its requests back (scripted engine)", lambda: cancelled(spark, 40_000))
        claim("answers outlive the host that is killed (scripted engine)", lambda: remembered(spark))
        claim("llmbatch.spark.run joins by id, and a second call goes on (scripted engine)", lambda: joined(spark))
        script = (
            Path(tempfile.mkdtemp()) / "script.yaml"
        )  # whose content tells its answers from the other engine's in the cache
        script.write_text(json.dumps(_REFUSING))
        llmbatch.spark.register(spark, model="demo", engine={**_SCRIPTED, "script": str(script)})
        claim(
            "a refused row has its errorMessage, the others their answers (scripted engine)", lambda: on_refusing(spark)
        )
    with session(CLUSTER) as spark:
        llmbatch.spark.register(spark, model="demo", engine=_SCRIPTED, profiles=profiles)
        llmbatch.spark.enable(spark)
        claim(
            "several executors, each a process of its own: one engine an executor (scripted engine)",
            lambda: on_executors(spark, given.rows),
        )
        claim("an executor killed in the middle costs no row (scripted engine)", lambda: executor_killed(spark, 8000))
    with session() as spark:
        # what the small model was not taught it writes without an end
        llmbatch.spark.register(spark, model="demo", sampling={"max_tokens": 200}, retry={"max_attempts": 1})
        llmbatch.spark.enable(spark)
        claim("the six statements run unchanged (demo model on vLLM)", lambda: on_model(spark))


if __name__ == "__main__":
    main()
