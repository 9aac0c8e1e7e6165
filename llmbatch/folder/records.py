"""Lines of results in, what is on them out. The one place where a part or a line that cannot be read becomes a ``FolderError``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.record import encode, json_decoder, record_from_dict
from llmbatch.core.types import Record
from llmbatch.core.words import excerpt

# The start of a line as it is written. Anchored, so that neither an id nor an output that looks like one is taken for it.
_HEAD = re.compile(
    rb'\{"id": ?(?P<id>"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\d+), ?"index": ?(?P<index>\d+), ?"status": ?"(?P<status>\w+)"'
)

_loads = json_decoder(json.JSONDecoder())


@contextlib.contextmanager
def reading(part: Path, what: str = "a sealed part") -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``FolderError`` that names the part."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"{part}: {what} cannot be read: {error.strerror or error}; see llmbatch audit") from error


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


def index_of(line: bytes) -> int:
    """The index of the row whose record is on a line, as a rule without parsing all of it. Raises ``FolderError``."""
    if match := _HEAD.match(line):
        return int(match["index"])
    return record_on(line).index


def id_of(line: bytes) -> bytes:
    """The id of the row whose record is on a line, as JSON, as a rule without parsing all of it. Raises ``FolderError``."""
    if match := _HEAD.match(line):
        return match["id"]
    return encode(record_on(line).id).encode()


def status_of(line: bytes) -> str:
    """The status of the record on a line, as a rule without parsing all of it. Raises ``FolderError``."""
    if match := _HEAD.match(line):
        return match["status"].decode()
    return str(parse(line)["status"])


def head_of(line: bytes) -> tuple[int, str]:
    """(index, status) of the record on a line, as a rule without parsing all of it. Raises ``FolderError``."""
    if match := _HEAD.match(line):
        return int(match["index"]), match["status"].decode()
    record = parse(line)
    return int(record["index"]), str(record["status"])


def record_on(line: bytes) -> Record:
    """The record on a line. Raises ``FolderError``."""
    try:
        return record_from_dict(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"a line of results is no record: {excerpt(line)} ({error!r}); see llmbatch audit") from error


def parse(line: bytes) -> dict[str, Any]:
    """The JSON form of the record on a line. Raises ``FolderError``."""
    try:
        record = _loads(line.decode())
    except ValueError as error:
        raise FolderError(f"a line of a sealed part is not JSON: {excerpt(line)}; see llmbatch audit") from error
    if not isinstance(record, dict) or "status" not in record:
        raise FolderError(f"a line of a sealed part is not a record: {excerpt(line)}; see llmbatch audit")
    return record
