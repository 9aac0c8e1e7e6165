"""A finished run in, ``accepted.jsonl`` out: the lines of the records that are accepted, unchanged and in input order."""

from __future__ import annotations

from pathlib import Path

from llmbatch.accept.selection import Selection
from llmbatch.core.files import atomic_write
from llmbatch.folder.folder import ACCEPTED
from llmbatch.folder.records import record_on
from llmbatch.sinks.base import Finished, Output


def write_accepted(finished: Finished, output: Output) -> list[Path]:
    """Written where the job says what is accepted, as many as it wants and no more."""
    if finished.accept is None:
        return []
    path = output.folder / ACCEPTED
    atomic_write(path, Selection(finished.accept).among((line, record_on(line)) for line in finished.lines()))
    return [path]
