"""A run's sealed records and those of its finished retries in, the records as they are now out.

Parts are never changed. A retry lies over them: a row that was tried again has the record that came of it, with the attempts and
tokens of both. So what is written here can be made again from what is there, as often as need be.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmbatch.core.errors import FolderError
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Attempt, Record, RequestKey, Status
from llmbatch.folder.order import in_input_order, read_order
from llmbatch.folder.parts import Parts
from llmbatch.folder.records import index_of, part_lines, record_on


@dataclass(slots=True)
class Tally:
    """What laying retries over a run changes in counts that cannot be added up."""

    rows_retried: int = 0


def finished_retries(folder: Path) -> list[Path]:
    """The retries of a run whose records are taken over, oldest first."""
    return [path for path in all_retries(folder) if (path / "done").exists()]


def all_retries(folder: Path) -> list[Path]:
    """The folders of a run's retries, oldest first; the last may be unfinished."""
    return sorted(
        path for path in (folder / "retries").glob("[0-9][0-9][0-9]*") if path.is_dir() and path.name.isdigit()
    )


def overlay(lines: Iterable[bytes], retries: Sequence[Path], tally: Tally | None = None) -> Iterator[bytes]:
    """The lines of results, in input order, with those of the retries laid over them. Raises ``FolderError``."""
    for retry in retries:
        lines = _overlay(lines, retry / "results.jsonl", tally or Tally())
    yield from lines


def sealed_lines(folder: Path) -> Iterator[bytes]:
    """The lines of a run's sealed parts, in input order. Raises ``FolderError``."""
    parts = Parts(folder / "parts")
    sealed, _ = parts.scan()
    paths = [parts.path(window) for window in sorted(sealed)]
    return part_lines(paths) if read_order(folder) is None else in_input_order(paths)


def combine(before: Record, after: Record) -> Record:
    """The record of a row that was tried again: what came of it, with the attempts and tokens of both.

    Everything that the first record took is wasted, because it did not end ok.
    """
    history = list(before.history)
    if before.attempts and before.failure is not None:
        key = RequestKey(before.index, attempt=before.attempts)
        spent = before.usage - before.wasted
        history.append(Attempt(key, before.failure, spent, before.raw, before.finish_reason))
    later = [replace(a, key=a.key._replace(attempt=a.key.attempt + before.attempts)) for a in after.history]
    return replace(
        after,
        attempts=before.attempts + after.attempts,
        usage=before.usage + after.usage,
        wasted=before.usage + after.wasted,
        history=(*history, *later),
    )


def _overlay(lines: Iterable[bytes], retried: Path, tally: Tally) -> Iterator[bytes]:
    pairs = heapq.merge(_by_index(lines, 0), _by_index(part_lines([retried]), 1), key=lambda item: item[:2])
    last: tuple[int, bytes] | None = None
    for index, which, line in pairs:
        if which == 1:
            if last is None or last[0] != index:
                raise FolderError(f"{retried}: has a row (index {index}) that the run does not have")
            before, after = record_on(last[1]), record_on(line)
            if before.id != after.id:
                raise FolderError(
                    f"{retried}: the row with index {index} has the id {after.id!r}, in the run it is {before.id!r}"
                )
            both = combine(before, after)
            tally.rows_retried += (both.attempts > 1) - (before.attempts > 1) - (after.attempts > 1)
            last = (index, record_to_line(both))
            continue
        if last is not None:
            yield last[1]
        last = (index, line)
    if last is not None:
        yield last[1]


def _by_index(lines: Iterable[bytes], which: int) -> Iterator[tuple[int, int, bytes]]:
    for line in lines:
        yield index_of(line), which, line


def ledger_with(run: Ledger, retries: Iterable[Ledger], tally: Tally, errors: Iterable[Record]) -> Ledger:
    """The account of a run with its retries: tokens and answers add up, what became of the rows is told by the ``errors``."""
    ledger, bad = Ledger(), Ledger()
    for each in (run, *retries):
        ledger.merge(each)
    for record in errors:
        bad.add(record)
    rows = run.rows
    ledger.by_status = {
        status: count for status, count in {Status.OK: rows - bad.rows, **bad.by_status}.items() if count
    }
    ledger.by_failure, ledger.examples = bad.by_failure, bad.examples
    ledger.rows_retried += tally.rows_retried
    return ledger


__all__ = ["Tally", "all_retries", "combine", "finished_retries", "ledger_with", "overlay", "sealed_lines"]
