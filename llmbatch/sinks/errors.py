"""A finished run in, ``errors.jsonl`` out: the lines of the records that are not ok, unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from llmbatch.core.files import atomic_write
from llmbatch.folder.records import parse
from llmbatch.sinks.base import Finished

# The start of a line as it is written. Anchored, so that neither an id nor an output that looks like a status is taken for it.
_STATUS = re.compile(rb'\{"id": ?(?:"(?:[^"\\]|\\.)*"|-?\d+), ?"index": ?\d+, ?"status": ?"(\w+)"')


def write_errors(finished: Finished, output: Path) -> list[Path]:
    """Written even where every record is ok, and then empty."""
    path = output / "errors.jsonl"
    atomic_write(path, (line for line in finished.lines() if _status(line) != b"ok"))
    return [path]


def _status(line: bytes) -> bytes:
    if match := _STATUS.match(line):
        return match[1]
    return str(parse(line)["status"]).encode()
