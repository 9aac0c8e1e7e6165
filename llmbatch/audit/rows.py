"""The input of a run and its records in, whether every row is accounted for once out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.audit.finding import Finding
from llmbatch.audit.windows import Windows
from llmbatch.core.errors import InputChanged, LlmbatchError
from llmbatch.folder.input import check_input, is_as_read, kept_input, same_names
from llmbatch.folder.ordered import what_was_read
from llmbatch.job.job import Job
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source


def check_rows(
    job: Job, folder: Path, fingerprint: Sequence[Mapping[str, Any]], windows: Windows, *, ends_itself: bool
) -> tuple[Finding, Finding, int | None]:
    """Walk input and records side by side: whether the input is what was read, whether every row has its record, and how many
    rows have none (``None`` where the input cannot be read). ``ends_itself``: the run may end before its input does.
    """
    unchanged, rows = Finding("input", "is what the run read"), Finding("rows")
    owed: int | None = None
    try:
        source = open_source(kept_input(job.input, folder))
        _check_unchanged(source, fingerprint, windows, unchanged)
        owed = _walk(source, _wanted(job), _end(ends_itself, windows), windows, rows)
    except (LlmbatchError, OSError, ValueError, IndexError) as error:  # IndexError: one of several files is gone
        rows.problem(f"not every row can be accounted for: {error}")
    return unchanged, rows, owed


def _check_unchanged(
    source: Source, fingerprint: Sequence[Mapping[str, Any]], windows: Windows, check: Finding
) -> None:
    read = {window: (meta.bounds, meta.input_sha256) for window, meta in windows.sealed.items()} | windows.open
    for bounds, digest in what_was_read(windows.order, [known for _, known in sorted(read.items())]):
        if not is_as_read(source, bounds, digest):
            where = source.locate(bounds.start)
            check.problem(
                f"rows {bounds.start.index} to {bounds.last.index} (from {where} on) are not what the run read"
            )
    if check.problems:
        return
    try:
        check_input(source, same_names(fingerprint, source.fingerprint()), [], extend=True)
    except InputChanged as error:
        check.problem(str(error))


def _end(ends_itself: bool, windows: Windows) -> int | None:
    """Where the run ends before its input, the index behind the last row that was begun: none behind it is owed."""
    if not ends_itself:
        return None
    return max((bounds.last.index + 1 for bounds in windows.bounds().values()), default=0)


def _walk(source: Source, wanted: Container[int] | None, end: int | None, windows: Windows, check: Finding) -> int:
    records = windows.records()
    # of an order of the corpus its parts are held against it
    metas = windows.sealed.values() if windows.order is None else ()
    sealed = sorted((meta.bounds.last.index, meta.bounds.start.index) for meta in metas)
    rows = owed = passed = 0
    first = ""
    record = next(records, None)
    for row in source.rows():
        if end is not None and row.index >= end:
            break
        if wanted is not None and row.index not in wanted:
            continue
        rows += 1
        while record is not None and record[0] < row.index:
            check.problem(f"there is a record for row {record[0]}, which the input does not have")
            record = next(records, None)
        if record is not None and record[0] == row.index:
            if record[1] != row.id:
                check.problem(f"{source.locate(row.cursor)}: the row's id is {row.id!r}, its record's {record[1]!r}")
            record = next(records, None)
            continue
        owed += 1
        first = first or source.locate(row.cursor)
        while passed < len(sealed) and sealed[passed][0] < row.index:
            passed += 1
        if passed < len(sealed) and sealed[passed][1] <= row.index:
            check.problem(f"{source.locate(row.cursor)}: row {row.index} has no record, though its window is sealed")
    while record is not None:
        check.problem(f"there is a record for row {record[0]}, which the input does not have")
        record = next(records, None)
    check.seen = f"{rows} input rows: {rows - owed} with a record, {owed} owed{f', from {first} on' if owed else ''}"
    return owed


def _wanted(job: Job) -> Container[int] | None:
    if job.run.rows is None:
        return job.input.slice
    return frozenset(int(line) for line in job.run.rows.read_text(encoding="utf-8").split())
