"""A finished run in, ``errors.jsonl`` out: the lines of the records that are not ok, unchanged."""

from __future__ import annotations

from pathlib import Path

from llmbatch.core.files import atomic_write
from llmbatch.core.types import Status
from llmbatch.folder.folder import ERRORS
from llmbatch.folder.records import status_of
from llmbatch.sinks.base import Finished, Output


def write_errors(finished: Finished, output: Output) -> list[Path]:
    """Written even where every record is ok, and then empty."""
    path = output.folder / ERRORS
    atomic_write(path, (line for line in finished.lines() if status_of(line) != Status.OK))
    return [path]
