"""The rows of one split in, one by one; Parquet files named as the hub names them out: ``train-00000-of-00003.parquet``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import RunError
from llmbatch.core.files import atomic, writing
from llmbatch.publishing.columns import Columns

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_BYTES = 16 << 20  # of JSON; bounds memory, and is a row group


class Shards:
    """Writes a split into ``folder``. Raises ``WriteError``."""

    def __init__(self, folder: Path, split: str, columns: Columns, shard_bytes: int) -> None:
        self.split = split
        self.rows = 0
        self._folder = folder
        self._columns = columns
        self._schema: pa.Schema = columns.schema()
        self._shard_bytes = shard_bytes
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._writer: Any = None
        self._stream: Any = None
        self._open = contextlib.ExitStack()
        self._paths: list[Path] = []

    def append(self, columns: Mapping[str, Any], size: int) -> None:
        """Write a row, of about so many bytes as JSON."""
        self._waiting.append(self._columns.written(columns))
        self._waiting_bytes += size
        self.rows += 1
        if self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> list[Path]:
        """Write what is left; returns the files, of which there is one at least."""
        if self._waiting or not self._paths:
            self._flush()
        self._end()
        named = []
        for number, path in enumerate(self._paths):
            name = f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet"
            named.append(path.rename(path.with_name(name)))
        return named

    def close(self) -> None:
        """Give up what is open. May be called at any time; what fails now failed before, and was told."""
        with contextlib.suppress(Exception):
            self._open.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            self._begin()
        try:
            batch = pa.RecordBatch.from_pylist(self._waiting, schema=self._schema)
        except (pa.ArrowException, OverflowError) as error:
            raise RunError(
                f"a row cannot be written under the types that its columns have over all rows ({error}): leave the column out, "
                f"or make its values of one type. The types: {_shown(self._schema)}"
            ) from error
        with writing(self._paths[-1]):
            self._writer.write_batch(batch)
        self._waiting, self._waiting_bytes = [], 0
        if self._stream.tell() >= self._shard_bytes:
            self._end()

    def _begin(self) -> None:
        import pyarrow.parquet as pq

        path = self._folder / f"{self.split}-{len(self._paths):05d}.parquet"
        self._stream = self._open.enter_context(atomic(path))
        self._writer = self._open.enter_context(pq.ParquetWriter(self._stream, self._schema, compression="zstd"))
        self._paths.append(path)

    def _end(self) -> None:
        with writing(self._paths[-1]):
            self._open.close()
        self._writer = self._stream = None


def _shown(schema: pa.Schema) -> str:
    return json.dumps({field.name: str(field.type) for field in schema})
