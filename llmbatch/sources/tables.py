"""Batches of Arrow in, one row's fields at a time out, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import Mark
from llmbatch.sources.rows import make_row, malformed_row, plain

BATCH = 256  # rows that are Python objects at a time; documents can be long

Fields = Mapping[str, Any] | ValueError
"""A row's fields by column, or what cannot be read in it."""


def fields_of(batch: Any) -> Iterator[Fields]:
    """The rows of a ``pyarrow.RecordBatch`` or ``Table``; a value that Python cannot hold spoils only its own row."""
    import pyarrow.types as t

    as_is = (t.is_string, t.is_large_string, t.is_integer, t.is_boolean, t.is_null)
    odd = [field.name for field in batch.schema if not any(test(field.type) for test in as_is)]
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, NotImplementedError) as error:
        if batch.num_rows == 1:
            yield ValueError(str(error))
        else:
            for i in range(batch.num_rows):
                yield from fields_of(batch.slice(i, 1))
        return
    for row in rows:
        yield plain_fields(row, odd)


def plain_fields(row: dict[str, Any], columns: list[str]) -> Fields:
    """The row with these columns made JSON values, in place."""
    for name in columns:
        try:
            row[name] = plain(row[name])
        except ValueError as error:
            return ValueError(f"column {name!r} holds {error}")
    return row


def table_row(fields: Fields, cursor: Cursor, id_field: str | None, locate: Callable[[Cursor], str]) -> Row:
    """The row of a table at the cursor; malformed where its fields could not be read."""
    if isinstance(fields, ValueError):
        return malformed_row(cursor, f"{locate(cursor)}: {fields}; put the value right, or leave its column out")
    return make_row(fields, cursor, id_field, locate)


def numbered_marks(count: int, rows: int) -> Iterator[Mark]:
    """The blocks of so many ``rows`` of a source whose cursors are its rows' numbers."""
    for start in range(0, count, rows):
        yield Mark(Cursor(start, 0, start, start), min(rows, count - start))
