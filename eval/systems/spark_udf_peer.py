"""Prints what ``mlflow.pyfunc.spark_udf`` does with a logged model of llmbatch's, a row a line: on local cores, and on executors.

spark_udf_peer.py [--rows N]

The engine is the scripted one: what is tried is Spark and MLflow. The store is SQLite, as MLflow takes no folder any more.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

sys.path.append(str(Path(__file__).parent))

from shown import tried, version_of
from spark_peer import CLUSTER, counts_of_hosts, session

import llmbatch.mlflow

SYSTEM = "Databricks, Spark"
ROWS = 20_000
_RULES = [{"when": {"contains": "bad"}, "fail": "no such luck"}]


def logged() -> str:
    """The URI of a model in a store of its own, whose prompt is a file that is there no more."""
    folder = Path(tempfile.mkdtemp())
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment("spark", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("spark")
    prompt = folder / "ask.yaml"
    prompt.write_text(
        "name: ask\nvariables: {text: {type: string}}\nmessages: [{role: user, content: 'Say {{ text }}'}]\n"
    )
    with mlflow.start_run():
        info = llmbatch.mlflow.log_model(
            "asker", model="demo", prompt=str(prompt), engine={"name": "scripted", "args": {"rules": _RULES}}
        )
    prompt.unlink()
    return str(info.model_uri)


def answered(spark: Any, uri: str, rows: int, executors: int) -> str:
    """So many rows by the model, one of them without an answer."""
    from pyspark.sql import functions

    ask = mlflow.pyfunc.spark_udf(spark, uri, result_type="output string, error string", env_manager="local")
    texts = spark.range(0, rows, 1, 8).select(
        "id", functions.expr("CASE id WHEN 7 THEN 'bad' ELSE concat('row ', id) END").alias("text")
    )
    found = texts.withColumn("a", ask("text")).cache()
    good = found.filter("a.output = concat('Say row ', id) AND a.error IS NULL").count()
    (bad,) = found.filter("a.output IS NULL").collect()
    assert (good, bad.id) == (rows - 1, 7) and "no such luck" in bad.a.error, (good, bad)
    starts = [counts["engine_starts"] for counts in counts_of_hosts()]
    assert starts == [1] * executors, starts
    return f"{rows:,} rows on {executors} executors, one failed and says why: {bad.a.error}; engine starts: {starts}"


def main() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    number = f"{version_of('pyspark')}, mlflow {version_of('mlflow')}"
    uri = logged()

    def claim(master: str, text: str, show: Callable[[Any], str]) -> None:
        with session(master) as spark:
            print(tried(SYSTEM, text, f"pyspark, {master}", number, lambda: show(spark)).as_line(), flush=True)

    claim(
        "local[2,4]",
        "mlflow.pyfunc.spark_udf of a logged model: one engine for all Python workers (scripted engine)",
        lambda spark: answered(spark, uri, rows, 1),
    )
    claim(
        CLUSTER,
        "mlflow.pyfunc.spark_udf on several executors: one engine an executor (scripted engine)",
        lambda spark: answered(spark, uri, rows, 2),
    )


if __name__ == "__main__":
    main()
