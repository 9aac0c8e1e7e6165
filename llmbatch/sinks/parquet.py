"""A finished run in, ``results.parquet`` out: a row for each record, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic
from llmbatch.core.words import short
from llmbatch.folder.records import parse
from llmbatch.sinks.base import Finished, Output

VERSION = 2
"""Of the columns: the second has ``stop_reason``. A table says its own in its schema's metadata."""
_VERSION_KEY = b"llmbatch.results"
_BATCH_BYTES = 16 << 20  # of JSON; bounds memory, and is a row group
_JSON = (
    "output",
    "reasoning",
    "logprobs",
    "details",
    "history",
    "input",
    "stop_reason",
)  # as JSON text; of these what is text stays as it is


def write_parquet(finished: Finished, output: Output) -> list[Path]:
    """The table of the run's records; see ``fill_table``."""
    path = output.folder / "results.parquet"
    write_table(finished.lines(), path, finished.dimensions())
    return [path]


def write_table(lines: Iterable[bytes], path: Path, dimensions: int | None = None) -> None:
    """Lines of ``results.jsonl`` as a table, whole or not there at all. Raises ``FolderError`` and ``WriteError``."""
    with atomic(path) as stream:
        fill_table(lines, stream, dimensions)


def fill_table(lines: Iterable[bytes], stream: BinaryIO, dimensions: int | None = None) -> None:
    """Write lines of ``results.jsonl`` as a table into a stream. Raises ``FolderError`` and ``OSError``.

    Columns: ``id`` (text), ``index``, ``status``, ``output`` (text; JSON text where it is none), ``finish_reason``,
    ``attempts``, ``prompt_tokens``, ``completion_tokens``, ``cached_tokens`` and the same three with ``wasted_`` before
    them, ``error_kind``, ``error_message``, ``raw``, ``reasoning`` (text; of several samples JSON text), and as JSON text
    ``logprobs``, ``details``, ``history``, ``input``, and last ``stop_reason`` (text; of several samples JSON text). Where outputs
    are vectors of so many ``dimensions`` the column ``output`` holds lists of that size, of 32-bit numbers; null for a row that is
    not ok.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(dimensions)
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for rows in _batches(lines, dimensions):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def table_of(records: Iterable[dict[str, Any]]) -> Any:
    """Records, as they are in ``results.jsonl``, as a table with the columns of ``fill_table``."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(record) for record in records], schema=_schema())


def _schema(dimensions: int | None = None) -> Any:
    """With ``dimensions`` outputs are vectors of so many numbers."""
    import pyarrow as pa

    text, number = pa.large_string(), pa.int64()
    output = text if dimensions is None else pa.list_(pa.float32(), dimensions)
    columns = {
        "id": pa.string(), "index": number, "status": pa.string(), "output": output, "finish_reason": pa.string(),
        "attempts": number, "prompt_tokens": number, "completion_tokens": number, "cached_tokens": number,
        "wasted_prompt_tokens": number, "wasted_completion_tokens": number, "wasted_cached_tokens": number,
        "error_kind": pa.string(), "error_message": pa.string(), "raw": text, "reasoning": text,
        "logprobs": text, "details": text, "history": text, "input": text, "stop_reason": text,
    }  # fmt: skip
    return pa.schema(list(columns.items()), metadata={_VERSION_KEY: str(VERSION)})


def version_of(path: Path) -> int:
    """Which columns a table that is there has: 1 where it does not say, as those before ``stop_reason`` do not.

    Raises ``FolderError`` for a file that is no table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = pq.read_schema(path).metadata or {}
        return int(said.get(_VERSION_KEY, 1))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FolderError(
            f"{path}: is no table that can be read: {error}; remove it, and it is written anew"
        ) from error


def _batches(lines: Iterable[bytes], dimensions: int | None) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        record = parse(line)
        rows.append(_row(record) if dimensions is None else {**_row(record), "output": _vector(record, dimensions)})
        size += len(line)
        if size > _BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _vector(record: dict[str, Any], dimensions: int) -> list[float] | None:
    vector: list[float] | None = record["output"]
    if vector is not None and len(vector) != dimensions:
        raise FolderError(
            f"row {short(record['id'])}: its vector has {len(vector):,} numbers, and those before it have {dimensions:,}, so they "
            "are no table: were rows tried again with other dimensions?"
        )
    # a large number is a whole one on its line, which Arrow takes for one of 32 bits only where it is exactly that
    return None if vector is None else list(map(float, vector))


def _row(record: dict[str, Any]) -> dict[str, Any]:
    usage = record["usage"]
    error = record.get("error", {})
    return {
        **record,
        **{name: usage[name] for name in _TOKENS},
        **{f"wasted_{name}": usage["wasted"][name] for name in _TOKENS},
        **{name: _json(record.get(name)) for name in _JSON},
        "id": str(record["id"]),
        "error_kind": error.get("kind"),
        "error_message": error.get("message"),
    }


_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


def _json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
