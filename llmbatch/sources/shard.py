"""``i/n`` in; which rows of an input are in that slice of it, out.

Rows are dealt out in blocks of neighbours, as cards are: the first block to slice 1, the next to slice 2, and so on.
Neighbours stay together because rows that stand together often share a prefix, and a block is a window of the run, so that the
parts of finished slices are those of the whole input (``llmbatch merge``). How many rows there are need not be known: blocks are
small at first, so that a small input is dealt out evenly too, and grow with what lies before them, up to a usual window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from llmbatch.core.types import Row

_SMALLEST = 256  # rows of a block
_LARGEST = 16_384
_ROUNDS = 16  # a block is a sixteenth of what its slice had before: no slice has some 6% more than another
_NAMED = re.compile(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*")


class Shard(NamedTuple):
    """One slice: its number, from 1, and how many there are."""

    number: int
    of: int

    @classmethod
    def named(cls, text: str) -> Shard:
        """The slice ``i/n``. Raises ``ValueError``."""
        found = _NAMED.fullmatch(text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            counted = " (slices count from 1, as in sbatch --array=1-N)" if shard and not shard.number else ""
            raise ValueError(f"is i/n, such as 2/8 for the second of eight slices, and not {text!r}{counted}")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Slice:
    """The rows of a shard: ``index in slice``. Quick for indexes that come in order."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._rounds = _rounds(shard.of)
        self._start = self._end = self._size = 0  # of the round that was looked at last

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        if index < self._start:
            self._rounds, self._start, self._end = _rounds(self._shard.of), 0, 0
        while index >= self._end:
            self._start, self._size = next(self._rounds)
            self._end = self._start + self._size * self._shard.of
        return (index - self._start) // self._size == self._shard.number - 1


def rows_in(rows: Iterator[Row], part: Slice | None) -> Iterator[Row]:
    """Those of the rows that are in the slice; all where there is none."""
    return rows if part is None else (row for row in rows if row.index in part)


def _rounds(slices: int) -> Iterator[tuple[int, int]]:
    """(index of the first row, rows of each slice's block) of round after round, without an end."""
    start = 0
    while True:
        size = min(_LARGEST, max(_SMALLEST, start // (slices * _ROUNDS)))
        yield start, size
        start += size * slices


__all__ = ["Shard", "Slice", "rows_in"]
