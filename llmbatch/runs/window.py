"""One window from its reading to its sealing: its rows' work in, their records in order out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from llmbatch.core.errors import RunError
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Failure, FailureKind, Record, Request, RequestKey, Reused, Status
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import record_entry
from llmbatch.programs.work import Work


class Plan(NamedTuple):
    """What is told of a window's plan: of its requests so many are sent, and so many repeat one of those."""

    sent: int
    folded: int
    notes: tuple[str, ...]  # sentences for a person


class OpenWindow:
    """One window from its reading to its sealing. Only the thread that has it touches it: first the reader's, then the runner's.

    The works of its rows are here, or in the process of a row worker: then ``works`` is empty.
    """

    __slots__ = (
        "bounds",
        "digests",
        "elsewhere",
        "entries",
        "groups",
        "input_sha256",
        "ledger",
        "lines",
        "order",
        "plan",
        "requests",
        "share",
        "works",
    )

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.order: list[int] = []  # row indexes as they were read
        self.lines: dict[int, bytes] = {}  # row index -> its line of results.jsonl
        self.works: dict[int, Work] = {}  # rows that are not finished, where their works are here
        self.requests: list[Request] = []  # to be asked, in order, duplicates last
        self.digests: list[bytes | None] = []  # of each of those requests, None for one that has none
        self.groups: dict[RequestKey, int] = {}  # of those that share a prefix, where there are several engines
        self.entries: list[bytes] = []  # journal entries that are not yet appended
        self.ledger = Ledger()
        self.share = 1.0  # of a full window, in what it holds: those of a slice may be small
        self.plan: Plan | None = None
        self.elsewhere = False  # the works are a row worker's
        self.input_sha256: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every row of the window has its record."""
        return len(self.lines) == len(self.order)

    @property
    def unfinished(self) -> Iterator[int]:
        """The rows that have no record."""
        return (index for index in self.order if index not in self.lines)

    def finish(self, record: Record, reused: Reused | None = None) -> Record:
        """A row has its record, which is returned as it is written; ``reused`` is the part of it that was not computed for the row.

        An answer that JSON or UTF-8 cannot hold is a failure of that row, not of the run. Raises ``RunError`` where a program made
        something else of it than JSON.
        """
        record, line = written(record)
        self.works.pop(record.index, None)
        self.ledger.add(record, reused)
        self.take(record.index, line, reused)
        return record

    def take(self, index: int, line: bytes, reused: Reused | None) -> None:
        """A row has its record, which is in the ledger already; ``line`` is its line of results.jsonl."""
        self.lines[index] = line
        self.entries.append(record_entry(line, reused))

    def sealed_lines(self) -> Iterator[bytes]:
        """The lines in input order, for the part."""
        return map(self.lines.__getitem__, sorted(self.order))


def written(record: Record) -> tuple[Record, bytes]:
    """A record as it is written, and its line of results.jsonl. See ``OpenWindow.finish``."""
    try:
        return record, record_to_line(record)
    except ValueError as error:  # UnicodeEncodeError is one
        record = _unwritable(record, error)
        return record, record_to_line(record)
    except TypeError as error:
        raise RunError(
            f"row {record.id!r}: its program returned what is no JSON: {error}; return text, numbers, lists and dicts of them"
        ) from error


def _unwritable(record: Record, error: ValueError) -> Record:
    failure = Failure(FailureKind.ENGINE, f"the record cannot be written as JSON: {error}")
    return Record(record.index, record.id, Status.FAILED, attempts=record.attempts, usage=record.usage, failure=failure)
