"""Keys of rows as Parquet files in; where the rows are, in their order, as a file out. DuckDB sorts, on disk where memory ends.

Run as a program (``python -m llmbatch.plan.sorting``), so that what the sort takes is given back: it loads what it needs, waits for
what it is to do as a line of JSON, and answers with one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import LlmbatchError
from llmbatch.core.files import writing
from llmbatch.plan.corpus_order import DEPTHS

COLUMNS = ("row", "file", "place", "line", "spool", "spot")
"""Whole numbers: a row's index, its place in the input as in a cursor, and where its copy is, if there is one."""

_LEVEL = 4  # bytes of a key for each depth
_BRANCHES = 3  # depths at which groups are ordered by their work
_GROWS = 1.5  # times as many groups as at the depth before: there the tree branches
_SAMPLE = 20_000  # rows from which that is told
_BATCH = 1 << 16  # rows that are written at a time


class Sorting(NamedTuple):
    """The keys (a glob), where the rows' ``COLUMNS`` go as 64-bit numbers, a folder for what memory does not hold, and how much may
    be taken.

    Beside these columns the keys have ``start`` and ``whole`` of a key, and ``work``: how long a row is expected to take.
    """

    keys: str
    places: str
    scratch: str
    threads: int
    memory: str = "192MB"


def sort(asked: Sorting) -> None:
    """Write the order of the rows."""
    import duckdb
    import numpy as np
    import pyarrow.parquet as pq

    scratch = Path(asked.scratch)
    done = scratch / "sorted.parquet"
    with duckdb.connect() as database:
        database.execute("SET memory_limit = ?", [asked.memory])
        database.execute("SET threads = ?", [asked.threads])
        database.execute("SET temp_directory = ?", [str(scratch / "sort")])
        database.execute("SET preserve_insertion_order = false")
        database.execute(f"CREATE VIEW keys AS SELECT * FROM read_parquet({_quoted(asked.keys)})")  # noqa: S608
        database.execute(f"COPY ({_query(_branches(database))}) TO {_quoted(str(done))} (FORMAT parquet)")
    with pq.ParquetFile(done) as file, Path(asked.places).open("wb") as places:
        for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            places.write(np.stack(columns, axis=1).astype("<i8").tobytes())
    done.unlink()


def _branches(database: Any) -> list[int]:
    """The depths, as lengths of a key, at which groups become many more, as far as a sample of the rows tells."""
    rows = database.execute(
        "SELECT start FROM keys WHERE hash(row) % greatest(1, (SELECT count(*) FROM keys) // ?) = 0", [_SAMPLE]
    ).fetchall()
    found, before = [], 1
    for length in range(_LEVEL, (len(DEPTHS) + 1) * _LEVEL + 1, _LEVEL):
        groups = len({start[:length] for (start,) in rows if len(start) >= length})
        if groups > _GROWS * before:
            found.append(length)
            before = groups
        if len(found) == _BRANCHES or not groups:
            break
    return found


def _query(branches: Sequence[int]) -> str:
    """Groups by their longest work at each branching, below that by the key; shorter prompts are groups of their own kind."""
    tables, terms = ["keys AS k"], []
    for number, length in enumerate(branches):
        start = f"k.start[1:{length}]"
        longest = f"SELECT start[1:{length}] AS start, max(work) AS work FROM keys GROUP BY 1"  # noqa: S608 - a number
        tables.append(f"JOIN ({longest}) AS g{number} ON g{number}.start = {start}")
        terms += [f"g{number}.work DESC", f"g{number}.start"]
    columns = ", ".join(f"k.{name}" for name in COLUMNS)
    by = ", ".join([*terms, "k.start", "k.whole", "k.row"])
    return f"SELECT {columns} FROM {' '.join(tables)} ORDER BY {by}"  # noqa: S608 - names of ours


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def main() -> None:
    """The process: it ends when it has answered, or when nobody is there any more to ask."""
    answer: dict[str, str] = {}
    try:
        import duckdb  # noqa: F401 - loaded while the rows are read
        import numpy as np  # noqa: F401
        import pyarrow.parquet as pq  # noqa: F401

        if line := sys.stdin.readline():
            asked = Sorting(**json.loads(line))
            with writing(Path(asked.scratch)):
                sort(asked)
    except LlmbatchError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        answer = {"error": "RunError", "message": f"the order of the rows could not be made: {error}"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

__all__ = ["COLUMNS", "Sorting", "sort"]
