"""One window from its reading to its sealing: its rows' work in, their records in order out."""

from __future__ import annotations

from collections.abc import Iterator

from llmbatch.core.errors import RunError
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Failure, FailureKind, Record, Request, RequestKey, Reused, Status
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import record_entry
from llmbatch.plan.window import WindowPlan
from llmbatch.programs.work import Work


class OpenWindow:
    """One window from its reading to its sealing. Only the thread that has it touches it: first the reader's, then the runner's."""

    __slots__ = (
        "bounds",
        "digests",
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
        self.works: dict[int, Work] = {}  # rows that are not finished
        self.requests: list[Request] = []  # to be asked, in order, duplicates last
        self.digests: dict[RequestKey, bytes] = {}  # of those requests that have one
        self.groups: dict[RequestKey, int] = {}  # of those that share a prefix, where there are several engines
        self.entries: list[bytes] = []  # journal entries that are not yet appended
        self.ledger = Ledger()
        self.share = 1.0  # of a full window, in what it holds: those of a slice may be small
        self.plan: WindowPlan | None = None
        self.input_sha256: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every row of the window has its record."""
        return len(self.lines) == len(self.order)

    def finish(self, record: Record, reused: Reused | None = None) -> Record:
        """A row has its record, which is returned as it is written; ``reused`` is the part of it that was not computed for the row.

        An answer that JSON or UTF-8 cannot hold is a failure of that row, not of the run. Raises ``RunError`` where a program made
        something else of it than JSON.
        """
        try:
            line = record_to_line(record)
        except ValueError as error:  # UnicodeEncodeError is one
            record = _unwritable(record, error)
            line = record_to_line(record)
        except TypeError as error:
            raise RunError(
                f"row {record.id!r}: its program returned what is no JSON: {error}; return text, numbers, lists and dicts of them"
            ) from error
        self.lines[record.index] = line
        self.works.pop(record.index, None)
        self.entries.append(record_entry(line, reused))
        self.ledger.add(record, reused)
        return record

    def sealed_lines(self) -> Iterator[bytes]:
        """The lines in input order, for the part."""
        return map(self.lines.__getitem__, sorted(self.order))


def _unwritable(record: Record, error: ValueError) -> Record:
    failure = Failure(FailureKind.ENGINE, f"the record cannot be written as JSON: {error}")
    return Record(record.index, record.id, Status.FAILED, attempts=record.attempts, usage=record.usage, failure=failure)
