"""The records of two runs in, in input order; rows that ended otherwise in one than in the other, paired by id, out.

Memory does not grow with the runs: what waits for its row in the other run is in memory as long as the two are in nearly the same
order, and beyond that in a temporary file.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from llmbatch.folder.records import id_of, parse

_IN_MEMORY = 64 << 20  # bytes of lines that wait

Kind = Literal["status", "answer", "only_a", "only_b"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that ended otherwise in run B than in run A. ``a`` and ``b`` are its records as JSON has them.

    ``status``: another status, or another kind of failure. ``answer``: the same status with another output, or, where it is not
    ok, another text that did not do. ``only_a``, ``only_b``: one run alone has the row.
    """

    kind: Kind
    a: dict[str, Any] | None
    b: dict[str, Any] | None


@dataclass(slots=True)
class DiffCounts:
    """How many rows are the same and how many are not, so far."""

    rows_a: int = 0
    rows_b: int = 0
    same: int = 0
    by_kind: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(("status", "answer", "only_a", "only_b"), 0))
    changes: dict[tuple[str, str], int] = field(default_factory=dict)  # (ending in A, ending in B) -> rows


def differences(a: Iterable[bytes], b: Iterable[bytes], counts: DiffCounts) -> Iterator[Difference]:
    """Each row that differs, about in input order; those that one run alone has come last. ``counts`` is counted up.

    ``a`` and ``b`` are lines of results. Of rows with the same id the first of one run is paired with the first of the other, and
    so on. Raises ``FolderError`` for a line that is no record.
    """
    for one, other in _paired(a, b):
        counts.rows_a += one is not None
        counts.rows_b += other is not None
        found = _difference(one, other)
        if found is None:
            counts.same += 1
            continue
        counts.by_kind[found.kind] += 1
        if found.kind == "status" and found.a is not None and found.b is not None:
            change = (ending(found.a), ending(found.b))
            counts.changes[change] = counts.changes.get(change, 0) + 1
        yield found


def ending(record: dict[str, Any]) -> str:
    """How a row ended: ``ok``, or its status with the kind of its failure, as ``invalid (schema)``."""
    error = record.get("error")
    return f"{record['status']} ({error['kind']})" if error else str(record["status"])


def answer(record: dict[str, Any]) -> Any:
    """What the model said last: the output, or the text that did not do; None where there is none."""
    return record["output"] if record["status"] == "ok" else record.get("raw")


def _difference(one: bytes | None, other: bytes | None) -> Difference | None:
    if one == other:
        return None
    a, b = (None if line is None else parse(line) for line in (one, other))
    if a is None or b is None:
        return Difference("only_b" if a is None else "only_a", a, b)
    if ending(a) != ending(b):
        return Difference("status", a, b)
    return Difference("answer", a, b) if answer(a) != answer(b) else None


def _paired(a: Iterable[bytes], b: Iterable[bytes]) -> Iterator[tuple[bytes | None, bytes | None]]:
    with closing(_Waiting()) as waiting_a, closing(_Waiting()) as waiting_b:
        for one, other in zip_longest(a, b):
            if one == other and not waiting_a and not waiting_b:
                yield one, other
                continue
            if one is not None:
                if (match := waiting_b.pop(key := id_of(one))) is not None:
                    yield one, match
                else:
                    waiting_a.put(key, one)
            if other is not None:
                if (match := waiting_a.pop(key := id_of(other))) is not None:
                    yield match, other
                else:
                    waiting_b.put(key, other)
        for line in waiting_a.rest():
            yield line, None
        for line in waiting_b.rest():
            yield None, line


class _Waiting:
    """Lines of one run that wait for the row of the same id in the other, first in first out for each id."""

    def __init__(self) -> None:
        self._near: dict[bytes, deque[bytes]] = {}
        self._bytes = 0
        self._far: sqlite3.Connection | None = None

    def __bool__(self) -> bool:
        return bool(self._near) or self._far is not None

    def put(self, key: bytes, line: bytes) -> None:
        self._bytes += len(line)
        if self._far is None and self._bytes > _IN_MEMORY:
            self._far = sqlite3.connect(
                "", isolation_level=None
            )  # a file without a name, which is gone when it is closed
            self._far.execute("PRAGMA journal_mode = OFF")
            self._far.execute("CREATE TABLE lines (number INTEGER PRIMARY KEY, id BLOB, line BLOB)")
            self._far.execute("CREATE INDEX ids ON lines (id)")
        if self._far is None:
            self._near.setdefault(key, deque()).append(line)
        else:
            self._far.execute("INSERT INTO lines (id, line) VALUES (?, ?)", (key, line))

    def pop(self, key: bytes) -> bytes | None:
        """The line that has waited longest, which then waits no more."""
        if (queue := self._near.get(key)) is not None:
            line = queue.popleft()
            self._bytes -= len(line)
            if not queue:
                del self._near[key]
            return line
        if self._far is None:
            return None
        found = self._far.execute(
            "SELECT number, line FROM lines WHERE id = ? ORDER BY number LIMIT 1", (key,)
        ).fetchone()
        if found is None:
            return None
        self._far.execute("DELETE FROM lines WHERE number = ?", found[:1])
        return bytes(found[1])

    def rest(self) -> Iterator[bytes]:
        for queue in self._near.values():
            yield from queue
        if self._far is not None:
            for (line,) in self._far.execute("SELECT line FROM lines ORDER BY number"):
                yield bytes(line)

    def close(self) -> None:
        if self._far is not None:
            self._far.close()


__all__ = ["DiffCounts", "Difference", "Kind", "answer", "differences", "ending"]
