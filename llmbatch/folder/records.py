"""Lines of results in, what is on them out. The one place where a part or a line that cannot be read becomes a ``FolderError``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.quick_json import parse_line
from llmbatch.core.record import encode, record_from_dict
from llmbatch.core.types import Record
from llmbatch.core.words import excerpt

# The start of a line as it is written. Anchored, so that neither an id nor an output that looks like one is taken for it.
_HEAD = re.compile(
    rb'\{"id": ?(?P<id>"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\d+), ?"index": ?(?P<index>\d+), ?"status": ?"(?P<status>\w+)"'
)
# of a line that has no output
_FAILURE = re.compile(
    rb'"output":null,"finish_reason":(?:null|"\w+"),"attempts":\d+,"usage":\{[^{}]*\{[^{}]*\}\},"error":\{"kind":"(\w+)"'
)
_FAILURE_WITHIN = 4096  # bytes from the start of a line


@contextlib.contextmanager
def reading(part: Path, what: str = "a sealed part") -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``FolderError`` that names the part."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"{part}: {what} cannot be read: {error.strerror or error}; see llmbatch audit") from error


def part_lines(parts: Sequence[Path]) -> Iterator[bytes]:
    """Every line of the parts, or of other files of records, in order, each with its newline. Raises ``FolderError``."""
    for part in parts:
        what = "a sealed part" if part.name.startswith("part-") else "a file of records"
        with reading(part, what):
            stream = part.open("rb", buffering=1 << 20)
        with stream:
            while True:
                with reading(part, what):
                    lines = stream.readlines(1 << 20)
                if not lines:
                    break
                torn = None if lines[-1].endswith(b"\n") else lines.pop()
                yield from lines
                if torn is not None:
                    raise FolderError(f"{part}: {what} ends in the middle of a line; see llmbatch audit")


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


def failure_on(line: bytes) -> str:
    """How a row that is not ok ended: the kind of its failure, as a rule without parsing all of it. Raises ``FolderError``."""
    if match := _FAILURE.search(line, 0, _FAILURE_WITHIN):
        return match[1].decode()
    record = parse(line)
    return str(record["error"]["kind"] if record.get("error") else record["status"])


def brought_several(line: bytes) -> bool:
    """Whether the row brought several texts, and its output is a vector of each."""
    return b'"output":[[' in line


def with_id(lines: Iterable[bytes], row_id: str) -> Iterator[bytes]:
    """The lines of the rows with this id: the text, or the number that it writes."""
    forms = [encode(row_id)]
    if row_id.removeprefix("-").isdecimal() and str(int(row_id)) == row_id:
        forms.append(row_id)
    starts = tuple(f'{{"id":{form},'.encode() for form in forms)
    return (line for line in lines if line.startswith(starts))


def record_on(line: bytes) -> Record:
    """The record on a line. Raises ``FolderError``."""
    try:
        return record_from_dict(parse_line(line))
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"a line of results is no record: {excerpt(line)} ({error!r}); see llmbatch audit") from error


def parse(line: bytes) -> dict[str, Any]:
    """The JSON form of the record on a line. Raises ``FolderError``."""
    try:
        record = parse_line(line)
    except ValueError as error:
        raise FolderError(f"a line of a sealed part is not JSON: {excerpt(line)}; see llmbatch audit") from error
    if not isinstance(record, dict) or "status" not in record:
        raise FolderError(f"a line of a sealed part is not a record: {excerpt(line)}; see llmbatch audit")
    return record
