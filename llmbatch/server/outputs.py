"""A job in, run to its end or not; its rows in input order, each with its record or with none, out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.types import Row
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.records import index_of, parse
from llmbatch.job.job import Job
from llmbatch.sources.opening import open_source
from llmbatch.sources.reader import each_row


class Pair(NamedTuple):
    """A row, and its record in its JSON form; ``None`` where the run ended before it had one."""

    row: Row
    record: dict[str, Any] | None


def pairs(job: Job) -> Iterator[Pair]:
    """Every row of the job's input with what became of it. Raises ``FolderError``, and ``ReadError`` where the input fails."""
    lines = record_lines(job.output)
    line = next(lines, None)
    for row in each_row(open_source(job.input)):
        if line is None or index_of(line) != row.index:
            yield Pair(row, None)
            continue
        yield Pair(row, parse(line))
        line = next(lines, None)


def record_lines(folder: Path) -> Iterator[bytes]:
    """Every record that there is up to now, in input order, also while a run goes on; none of a run that never began."""
    return RunFolder(folder).record_lines()
