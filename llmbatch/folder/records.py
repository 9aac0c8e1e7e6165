"""Sealed parts in, their lines or records out. The one place where an unreadable part becomes a ``FolderError``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.words import excerpt


@contextlib.contextmanager
def reading(part: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``FolderError`` that names the part."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{part}: a sealed part cannot be read: {error.strerror or error}; see llmbatch audit"
        ) from error


def part_lines(parts: Sequence[Path]) -> Iterator[bytes]:
    """Every line of the parts, in order, each with its newline. Raises ``FolderError``."""
    for part in parts:
        with reading(part):
            stream = part.open("rb", buffering=1 << 20)
        with stream:
            while True:
                with reading(part):
                    lines = stream.readlines(1 << 20)
                if not lines:
                    break
                if not lines[-1].endswith(b"\n"):
                    raise FolderError(f"{part}: a sealed part ends in the middle of a line; see llmbatch audit")
                yield from lines


def parse(line: bytes) -> dict[str, Any]:
    """The JSON form of the record on a line. Raises ``FolderError``."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise FolderError(f"a line of a sealed part is not JSON: {excerpt(line)}; see llmbatch audit") from error
    if not isinstance(record, dict) or "status" not in record:
        raise FolderError(f"a line of a sealed part is not a record: {excerpt(line)}; see llmbatch audit")
    return record
