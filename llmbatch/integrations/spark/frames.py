"""A Spark DataFrame in; the same with what became of each row out: a run in a folder of the driver's, which can be gone on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.api import AProgram, Schema
from llmbatch.api import run as run_rows
from llmbatch.core.errors import JobError
from llmbatch.core.events import Watcher
from llmbatch.core.imports import extra

_COLUMNS = {"response": "output", "status": "status", "error": "error_message"}
_ID = "llmbatch_id"
_ID_TYPES = ("string", "byte", "short", "integer", "long", "tinyint", "smallint", "int", "bigint")


def run(
    df: Any,
    *,
    id: str,
    model: str | Path,
    output: str | Path,
    prompt: str | Path | Mapping[str, Any] | None = None,
    program: AProgram | None = None,
    schema: Schema | None = None,
    prefix: str = "",
    watchers: Sequence[Watcher] = (),
    **sections: Any,
) -> Any:
    """Collect a DataFrame's rows, run them on the driver's machine, and join what became of each on the column ``id``.

    The columns ``response``, ``status`` and ``error`` are new, with ``prefix`` before them; a response that is no text is JSON.
    ``id`` names each row: a text or a whole number, no two the same. All other arguments are those of ``llmbatch.run``; the same
    call goes on with a run that was killed or stopped, as long as the rows are the same.

    Raises ``UsageError`` as ``llmbatch.run`` does, and ``RunError`` where the run did not finish.
    """
    functions = extra("pyspark.sql.functions", "spark", "llmbatch.spark.run")
    if id not in df.columns:
        raise JobError(f"id: there is no column {id!r}; the columns are {', '.join(df.columns)}")
    names = {prefix + name: column for name, column in _COLUMNS.items()}
    if there := sorted(names.keys() & set(df.columns)):
        raise JobError(f"the rows have columns of these names already: {', '.join(there)}; give a prefix")
    _check_ids(df, id, functions)
    done = run_rows(
        model=model, input=_rows(df.orderBy(id), id), output=output, prompt=prompt, program=program, schema=schema,
        watchers=watchers, **sections,
    )  # fmt: skip
    dataset = done.to_dataset()  # writes the table where it is not there
    found = _frame(df.sparkSession, done.folder / "results.parquet", dataset)
    found = found.select(
        found["id"].alias(_ID), *(found[column].alias(name) for name, column in names.items())
    )  # fmt: skip
    return df.join(found, df[id].cast("string") == found[_ID], "left").drop(_ID)


def _check_ids(df: Any, name: str, functions: Any) -> None:
    """Raises ``JobError`` where a column cannot name the rows: by its type, or as ids are missing or there twice."""
    column, kind = df[name], df.schema[name].dataType.typeName()
    if kind not in _ID_TYPES:
        raise JobError(f"id: {name} is of type {kind}, and an id is a text or a whole number: cast it to STRING")
    if name != "id" and "id" in df.columns:
        raise JobError(f"id: the rows of the run are named {name}, and there is a column id besides: rename that one")
    if (missing := df.filter(column.isNull()).limit(1).count()) > 0:
        raise JobError(f"id: {missing} or more rows have no {name}; every row needs one")
    twice = df.groupBy(column.cast("string").alias(name)).count().filter(functions.col("count") > 1).limit(3).collect()
    if twice:
        raise JobError(
            f"id: {name} is not different in every row: {', '.join(repr(row[0]) for row in twice)} is there twice or more"
        )


def _rows(df: Any, name: str) -> Iterator[dict[str, Any]]:
    """The rows in order, a partition at a time, each with its id as ``id``."""
    for row in df.toLocalIterator():
        yield {"id": row[name], **row.asDict(recursive=True)}


def _frame(spark: Any, table: Path, dataset: Any) -> Any:
    """The results as a DataFrame: executors on this machine read the file, to others it is sent."""
    try:
        local = str(spark.sparkContext.master).startswith("local")
    except Exception:  # a session of Spark Connect does not tell
        local = False
    if local:
        return spark.read.parquet(table.absolute().as_uri())
    return spark.createDataFrame(dataset.select_columns(["id", *_COLUMNS.values()]).to_pandas())


__all__ = ["run"]
