"""Rows of an input in; their keys as a file out, and copies of the rows where the input cannot be entered anywhere.

As a program (``python -m llmbatch.runs.order_pass``) it does so block after block, as it is told on its standard input. Messages
are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.faults import point
from llmbatch.core.files import writing
from llmbatch.core.types import Row
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.input import input_digest, kept_input
from llmbatch.folder.ordered import copied_row, copies_path
from llmbatch.job.job import job_from
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.measure.order_gain import key_of_row
from llmbatch.plan.sorting import COLUMNS
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source
from llmbatch.sources.reader import again, each_row

_NAMES = (*COLUMNS, "start", "whole", "work")


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


def write_keys(with_: Pass, number: int, rows: Iterable[Row]) -> tuple[Row, int]:
    """Write the keys of a block of rows; returns the last of them, and how many there were. One there must be."""
    recipe, spool, spot, found = with_.recipe, number if with_.spool else -1, -1, list[tuple[Any, ...]]()
    with _copies(with_, number) as copies:
        for row in rows:
            if copies is not None:
                spot = copies.tell()
                copies.write(copied_row(row))
            key = key_of_row(recipe, row)
            found.append((*row.cursor, spool, spot, key.start, key.whole, key.work))
    _write(with_.scratch / f"keys-{number:05d}.parquet", found)
    return row, len(found)


def seen(source: Source, bounds: Bounds) -> Seen:
    """A block whose keys were written, with the digest of what was read."""
    block = Seen(bounds, again(lambda: input_digest(source, bounds)))
    point("order-block")
    return block


def read_block(with_: Pass, asked: Bounds) -> Seen:
    """Read a block of which it is known where it starts and how many rows it has. Raises ``RunError`` where that has changed."""
    rows = each_row(with_.source, asked.start)
    first = next(rows, None)
    if first is not None:
        last, count = write_keys(with_, asked.window, _after(first, islice(rows, asked.rows - 1)))
        if count == asked.rows:
            return seen(with_.source, asked._replace(last=last.cursor))
    raise RunError(
        f"{with_.source.locate(asked.start)}: the input changed while it was read: run the same command again"
    )


def read_all(with_: Pass, rows_of_a_block: int) -> Iterator[Seen]:
    """Read all of an input forward, block by block."""
    rows, number = each_row(with_.source), 0
    first = next(rows, None)
    while first is not None:
        last, count = write_keys(with_, number, _after(first, islice(rows, rows_of_a_block - 1)))
        start, first = first.cursor, next(rows, None)
        stop = None if first is None else first.cursor
        yield seen(with_.source, Bounds(number, start, last.cursor, stop, count))
        number += 1


def _after(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


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


def _write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.array(column, pa.binary() if name == "start" else pa.int64())
        for name, column in zip(_NAMES, zip(*rows, strict=True), strict=True)
    }
    with writing(path):
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)


def main() -> None:
    """The process: told what to work with, then blocks; it ends when nothing more comes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    begin = json.loads(sys.stdin.readline())
    with_: Pass | None = None
    for line in sys.stdin:
        try:
            with_ = with_ or _opened(begin)
            block = read_block(with_, bounds_from_dict(json.loads(line)))
            answer: dict[str, Any] = {"seen": bounds_to_dict(block.bounds), "digest": block.digest}
        except LlmbatchError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _opened(begin: Mapping[str, Any]) -> Pass:
    job = job_from(begin["job"])
    source = open_source(kept_input(job.input, Path(begin["folder"])))
    return Pass(source, recipe_of(job), Path(begin["scratch"]), spool=False)


if __name__ == "__main__":
    main()

__all__ = ["Pass", "Seen", "read_all", "read_block", "seen", "write_keys"]
