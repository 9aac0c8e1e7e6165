"""A block of an input in; the keys of its rows as a file out, and copies of the rows where the input cannot be entered anywhere.

As a program (``python -m llmbatch.runs.order_pass``) it does so in a process of its own, block after block as it is told on its
standard input, and sorts at the end: so that all cores read, and what the sort takes is given back. Messages are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.faults import point
from llmbatch.core.files import writing
from llmbatch.core.types import Cursor, Row
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.input import input_digest, kept_input
from llmbatch.folder.ordered import copied_row, copies_path
from llmbatch.job.job import job_from
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.measure.order_gain import key_of_row
from llmbatch.plan.corpus_order import COLUMNS, Sorting, sorted_rows
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source
from llmbatch.sources.reader import Reader, again


class Seen(NamedTuple):
    """A block that was read."""

    bounds: Bounds
    digest: str | None


class Pass(NamedTuple):
    """What blocks are read with. ``spool``: their rows are copied."""

    source: Source
    recipe: Recipe
    scratch: Path
    spool: bool


def read_block(with_: Pass, reader: Reader, number: int, rows: int, stop: Cursor | None = None) -> Seen | None:
    """Read so many rows from where the reader is; ``None`` where there is none. ``stop``: where the next block starts, if known."""
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "start", "whole", "work")}
    start = last = None
    with _copies(with_, number) as copies:
        while len(columns["row"]) < rows and (row := reader.next) is not None:
            reader.take()
            start, last = start or row.cursor, row.cursor
            spot = -1 if copies is None else copies.tell()
            if copies is not None:
                copies.write(copied_row(row))
            _add(columns, with_.recipe, row, number if copies is not None else -1, spot)
    if reader.failure is not None:
        raise reader.failure
    if start is None or last is None:
        return None
    _write(with_.scratch / f"keys-{number:05d}.parquet", columns)
    behind = reader.next.cursor if reader.next is not None else None
    bounds = Bounds(number, start, last, stop or behind, len(columns["row"]))
    seen = Seen(bounds, again(lambda: input_digest(with_.source, bounds)))
    point("order-block")
    return seen


@contextlib.contextmanager
def _copies(with_: Pass, number: int) -> Iterator[IO[bytes] | None]:
    if not with_.spool:
        yield None
        return
    path = copies_path(with_.scratch, number)
    with writing(path), path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _add(columns: dict[str, list[Any]], recipe: Recipe, row: Row, spool: int, spot: int) -> None:
    key = key_of_row(recipe, row)
    values = (*row.cursor, spool, spot, key.start, key.whole, key.work)
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _write(path: Path, columns: Mapping[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"start": pa.binary()}
    table = pa.table({name: pa.array(column, types.get(name, pa.int64())) for name, column in columns.items()})
    with writing(path):
        pq.write_table(table, path, compression="none", use_dictionary=False)


def main() -> None:
    """The process: told what to work with, then blocks, then to sort; it ends when nothing more comes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    begin = json.loads(sys.stdin.readline())
    with_: Pass | None = None
    for line in sys.stdin:
        told = json.loads(line)
        try:
            if "sort" in told:
                _sort(Sorting(Path(begin["scratch"]), told["sort"]))
                answer: dict[str, Any] = {}
            else:
                with_ = with_ or _opened(begin)
                answer = _read(with_, told)
        except LlmbatchError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _opened(begin: Mapping[str, Any]) -> Pass:
    job = job_from(begin["job"])
    source = open_source(kept_input(job.input, Path(begin["folder"])))
    return Pass(source, recipe_of(job), Path(begin["scratch"]), spool=False)


def _read(with_: Pass, told: Mapping[str, Any]) -> dict[str, Any]:
    asked = bounds_from_dict(told)
    reader = Reader(with_.source)
    reader.seek(asked.start)
    seen = read_block(with_, reader, asked.window, asked.rows, asked.stop)
    if seen is None or seen.bounds.rows != asked.rows:
        raise RunError(
            f"{with_.source.locate(asked.start)}: the input changed while it was read: run the same command again"
        )
    return {"seen": bounds_to_dict(seen.bounds), "digest": seen.digest}


def _sort(sorting: Sorting) -> None:
    with writing(sorting.scratch), (sorting.scratch / "places").open("wb") as file:
        for some in sorted_rows(str(sorting.scratch / "keys-*.parquet"), sorting):
            file.write(some)


if __name__ == "__main__":
    main()
