"""The records of a run in, in input order; which of them are accepted out, and why the others fell.

A pure fold: what is accepted depends on the records and the settings alone, and not on when, in which windows or sessions, or by
how many engines they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from llmbatch.accept.base import AcceptSettings, Candidate, Fell, candidate_of
from llmbatch.accept.similar import Kept, Sketch
from llmbatch.core.types import Record, RowId
from llmbatch.core.words import short

_BATCH = 512  # candidates that are decided together
NEAR = "near-duplicate of an accepted row"
Line = TypeVar("Line")


@dataclass(slots=True)
class FellCount:
    """The candidates that fell for one reason, with the first of them as an example."""

    rows: int
    index: int
    id: RowId
    message: str


@dataclass(slots=True)
class Decided:
    """What was decided so far. ``candidates`` are those up to the last that was needed; ``surplus`` were asked besides."""

    candidates: int = 0
    accepted: int = 0
    surplus: int = 0
    since: int = 0  # candidates since the last that was accepted
    fell: dict[str, FellCount] = field(default_factory=dict)


class Selection:
    """Decides about the candidates of one run, from the first on."""

    def __init__(self, settings: AcceptSettings) -> None:
        self._settings = settings
        self._kept = None if settings.unique is None else Kept(settings.unique.similarity)
        self._ids: list[RowId] = []  # of the accepted, where texts are compared
        self.decided = Decided()

    @property
    def full(self) -> bool:
        """Whether as many are accepted as are wanted."""
        return self.decided.accepted == self._settings.rows

    def take(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Whether each of the next candidates is accepted."""
        if self._kept is None:
            return [self._settle(candidate, candidate.fell) for candidate in candidates]
        compared = [candidate.text for candidate in candidates if candidate.text is not None and candidate.fell is None]
        sketches = iter(() if self.full else self._kept.sketches(compared))
        return [self._compare(self._kept, candidate, sketches) for candidate in candidates]

    def accepts(self, record: Record) -> bool:
        """Whether the next candidate, whose record this is, is accepted."""
        (accepted,) = self.take([candidate_of(record, self._settings.unique)])
        return accepted

    def among(self, records: Iterable[tuple[Line, Record]]) -> Iterator[Line]:
        """Of the next records, each with what it was read from: what the accepted ones were read from."""
        rest = iter(records)
        while batch := list(islice(rest, _BATCH)):
            taken = self.take([candidate_of(record, self._settings.unique) for _, record in batch])
            yield from (line for (line, _), accepted in zip(batch, taken, strict=True) if accepted)

    def _compare(self, kept: Kept, candidate: Candidate, sketches: Iterator[Sketch]) -> bool:
        if candidate.fell is not None or self.full:
            return self._settle(candidate, candidate.fell)
        sketch = next(sketches)
        near = kept.near(sketch)
        if near is not None:
            of = f"{near.similarity:.0%} of it are in row {short(self._ids[near.number])} too"
            return self._settle(candidate, Fell(NEAR, of))
        kept.keep(sketch)
        self._ids.append(candidate.id)
        return self._settle(candidate, None)

    def _settle(self, candidate: Candidate, fell: Fell | None) -> bool:
        decided = self.decided
        if self.full:
            decided.surplus += 1
            return False
        decided.candidates += 1
        if fell is None:
            decided.accepted, decided.since = decided.accepted + 1, 0
            return True
        decided.since += 1
        if (known := decided.fell.get(fell.reason)) is not None:
            known.rows += 1
        else:
            decided.fell[fell.reason] = FellCount(1, candidate.index, candidate.id, fell.message)
        return False


def decided_of(settings: AcceptSettings, records: Iterable[Record]) -> Decided:
    """What becomes of all records of a run."""
    selection = Selection(settings)
    for _ in selection.among((None, record) for record in records):
        pass
    return selection.decided


__all__ = ["NEAR", "Decided", "FellCount", "Selection", "decided_of"]
