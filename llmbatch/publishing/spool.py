"""Examples in, kept on disk in order until it is known which of them are published; read again from there out."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.files import writing


class Kept(NamedTuple):
    """An example as it is kept: where it comes from (run, id, index), its columns, and its size in bytes."""

    origin: dict[str, Any]
    columns: dict[str, Any]
    size: int


class Spool:
    """Takes 8 bytes of memory an example. Raises ``WriteError``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("Q")
        self._size = 0
        with writing(path):
            self._file = path.open("w+b", buffering=1 << 20)

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, origin: Mapping[str, Any], columns: Mapping[str, Any]) -> int:
        """Keep an example; returns its size in bytes."""
        line = json.dumps([origin, columns], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with writing(self._path):
            self._file.write(line)
        self._starts.append(self._size)
        self._size += len(line)
        return len(line)

    def __iter__(self) -> Iterator[Kept]:
        with writing(self._path):
            self._file.flush()
            lines = self._path.open("rb", buffering=1 << 20)
        with lines:
            for line in lines:
                origin, columns = json.loads(line)
                yield Kept(origin, columns, len(line))

    def origin(self, number: int) -> dict[str, Any]:
        """Where an example comes from."""
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self) else self._size
        with writing(self._path):
            self._file.flush()
            origin: dict[str, Any] = json.loads(os.pread(self._file.fileno(), end - start, start))[0]
        return origin

    def close(self) -> None:
        self._file.close()
