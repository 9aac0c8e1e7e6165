"""Records in, the account of a run out: rows by status, failures by kind, and where every token went.

Each token that a record counts is in exactly one of three sums: *useful* (it gave an ok row its output), *wasted* (its
answer was sent back, or its row did not end ok) and *folded* (of an answer that was computed for an equal request: that of a
row of this run, or of an earlier run whose answers are in the cache). So

    useful + wasted + folded = the sum over the records        useful + wasted = what the engine computed for them

A ledger is the sum of its records, in whatever order and grouping they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from llmbatch.core.types import Failure, FailureKind, Record, Reused, RowId, Status, Usage

_NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Example:
    """The first row, in input order, that ended with a kind of failure."""

    index: int
    id: RowId
    message: str


class WorstFailure(NamedTuple):
    """A kind of failure, how many rows ended with it, and the first of them, in input order, with what was wrong."""

    kind: str
    rows: int
    id: RowId
    message: str


class TokenSum:
    """A sum of usages that grows in place: adding frozen values would cost more than all the rest of a ledger."""

    __slots__ = ("cached", "completion", "prompt")

    def __init__(self, usage: Usage | None = None) -> None:
        self.prompt = self.completion = self.cached = 0
        if usage is not None:
            self.add(usage)

    def add(self, usage: Usage) -> None:
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens
        self.cached += usage.cached_tokens

    def take(self, usage: Usage) -> None:
        self.prompt -= usage.prompt_tokens
        self.completion -= usage.completion_tokens
        self.cached -= usage.cached_tokens

    def holds(self, usage: Usage) -> bool:
        """Whether the sum is at least this usage, count by count."""
        return (
            self.prompt >= usage.prompt_tokens
            and self.completion >= usage.completion_tokens
            and self.cached >= usage.cached_tokens
        )

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt, self.completion, self.cached)


class Ledger:
    """The account of some records. Grows by ``add`` and ``merge``; its JSON form is that of ``as_dict``."""

    __slots__ = (
        "_folded",
        "_sent_back_tokens",
        "_useful",
        "_wasted",
        "attempts",
        "by_failure",
        "by_status",
        "examples",
        "rows_cached",
        "rows_folded",
        "rows_retried",
        "sent_back",
    )

    def __init__(self) -> None:
        self.by_status: dict[str, int] = {}
        self.by_failure: dict[str, int] = {}  # by the kind that a row ended with
        self.examples: dict[str, Example] = {}
        self.attempts = 0
        self.rows_retried = 0
        self.rows_folded = 0  # with an answer that was computed for another row of the run
        self.rows_cached = 0  # with an answer from the cache of earlier runs; no row is counted by both
        self.sent_back: dict[str, int] = {}  # answers that were computed and did not do, by kind
        self._sent_back_tokens: dict[str, TokenSum] = {}
        self._useful = TokenSum()
        self._wasted = TokenSum()
        self._folded = TokenSum()

    def add(self, record: Record, reused: Reused | None = None) -> None:
        """Count one record. ``reused`` is the part of its usage that was not computed for it."""
        self.by_status[record.status] = self.by_status.get(record.status, 0) + 1
        self.attempts += record.attempts
        if record.attempts > 1:
            self.rows_retried += 1
        if record.failure is not None:
            self._add_failure(record, record.failure)
        if reused is not None:
            self.rows_cached += reused.cached
            self.rows_folded += not reused.cached
            self._folded.add(reused.usage)
            if reused.usage != record.usage:  # else nothing was computed for it
                self._add_sent_back(record, reused.usage)
        elif record.status is Status.OK and not record.history:
            self._useful.add(record.usage)
        else:
            self._add_sent_back(record, _NOTHING)

    def merge(self, other: Ledger) -> None:
        """Count all that ``other`` counted."""
        _add_counts(self.by_status, other.by_status)
        _add_counts(self.by_failure, other.by_failure)
        _add_counts(self.sent_back, other.sent_back)
        for kind, example in other.examples.items():
            self._keep_example(kind, example)
        for kind, tokens in other._sent_back_tokens.items():
            self._sent_back_tokens.setdefault(kind, TokenSum()).add(tokens.usage)
        self.attempts += other.attempts
        self.rows_retried += other.rows_retried
        self.rows_folded += other.rows_folded
        self.rows_cached += other.rows_cached
        self._useful.add(other.useful)
        self._wasted.add(other.wasted)
        self._folded.add(other.folded)

    @property
    def rows(self) -> int:
        return sum(self.by_status.values())

    @property
    def worst(self) -> WorstFailure | None:
        """The failure that most rows ended with."""
        if not self.by_failure:
            return None
        kind = min(self.by_failure, key=lambda kind: (-self.by_failure[kind], kind))
        example = self.examples[kind]
        return WorstFailure(str(kind), self.by_failure[kind], example.id, example.message)

    @property
    def useful(self) -> Usage:
        return self._useful.usage

    @property
    def wasted(self) -> Usage:
        return self._wasted.usage

    @property
    def folded(self) -> Usage:
        """What duplicates and the cache spared: counted by records, but not computed for them."""
        return self._folded.usage

    @property
    def computed(self) -> Usage:
        """The tokens that the engine took and gave for these records, by its own count."""
        return self.useful + self.wasted

    @property
    def total(self) -> Usage:
        """The sum over the records."""
        return self.computed + self.folded

    @property
    def sent_back_tokens(self) -> dict[str, Usage]:
        """The tokens that were wasted, by why; together ``wasted``, where every row that is not ok has a failure.

        Of an answer that was cut off and then gone on from, only the prompt that was sent again counts.
        """
        return {kind: tokens.usage for kind, tokens in self._sent_back_tokens.items()}

    def as_dict(self) -> dict[str, Any]:
        """The ledger as JSON data, the same for the same records in whatever order they came."""
        return {
            "by_status": _plain(self.by_status),
            "by_failure": _plain(self.by_failure),
            "examples": {str(kind): asdict(example) for kind, example in sorted(self.examples.items())},
            "attempts": self.attempts,
            "rows_retried": self.rows_retried,
            "rows_folded": self.rows_folded,
            "rows_cached": self.rows_cached,
            "sent_back": _plain(self.sent_back),
            "sent_back_tokens": {str(kind): usage.as_dict() for kind, usage in sorted(self.sent_back_tokens.items())},
            "useful": self.useful.as_dict(),
            "wasted": self.wasted.as_dict(),
            "folded": self.folded.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        """The ledger whose ``as_dict`` this is. Raises ``KeyError`` or ``TypeError`` for anything else."""
        ledger = cls()
        ledger.by_status = dict(data["by_status"])
        ledger.by_failure = dict(data["by_failure"])
        ledger.examples = {kind: Example(**example) for kind, example in data["examples"].items()}
        ledger.attempts = data["attempts"]
        ledger.rows_retried = data["rows_retried"]
        ledger.rows_folded = data["rows_folded"]
        ledger.rows_cached = data["rows_cached"]
        ledger.sent_back = dict(data["sent_back"])
        ledger._sent_back_tokens = {k: TokenSum(Usage(**tokens)) for k, tokens in data["sent_back_tokens"].items()}
        ledger._useful = TokenSum(Usage(**data["useful"]))
        ledger._wasted = TokenSum(Usage(**data["wasted"]))
        ledger._folded = TokenSum(Usage(**data["folded"]))
        return ledger

    def _add_failure(self, record: Record, failure: Failure) -> None:
        self.by_failure[failure.kind] = self.by_failure.get(failure.kind, 0) + 1
        self._keep_example(failure.kind, Example(record.index, record.id, failure.message))

    def _keep_example(self, kind: str, example: Example) -> None:
        known = self.examples.get(kind)
        if known is None or example.index < known.index:
            self.examples[kind] = example

    def _add_sent_back(self, record: Record, reused: Usage) -> None:
        """Count a row's computed tokens by what became of each answer: those of a row that did not end ok are all wasted.

        Which answers were reused is told by their usage; as a rule they are the row's first.
        """
        wasted, left, left_cut_off = TokenSum(record.wasted), TokenSum(reused), TokenSum()
        # an answer that was cut off may have been gone on from, and then not all of its tokens were wasted
        cut_off = TokenSum(record.wasted)
        for attempt in record.history:
            kind, usage = attempt.failure.kind, attempt.usage
            known = usage != _NOTHING and left.holds(usage)
            if known:
                left.take(usage)
            else:
                self.sent_back[kind] = self.sent_back.get(kind, 0) + 1
            if kind is FailureKind.TRUNCATED:
                if known:
                    left_cut_off.add(usage)
                continue
            cut_off.take(usage)
            if known:
                wasted.take(usage)
            else:
                self._add_tokens(kind, usage)
        spared = _least(cut_off.usage, left_cut_off.usage)
        cut_off.take(spared)
        wasted.take(spared)
        self._add_tokens(FailureKind.TRUNCATED, cut_off.usage)
        last = TokenSum(record.usage)
        last.take(reused)
        last.take(wasted.usage)
        self._wasted.add(wasted.usage)
        if record.status is Status.OK:
            self._useful.add(last.usage)
            return
        self._wasted.add(last.usage)
        if record.failure is not None and last.usage != _NOTHING:
            kind = record.failure.kind
            self.sent_back[kind] = self.sent_back.get(kind, 0) + 1
            self._add_tokens(kind, last.usage)

    def _add_tokens(self, kind: str, usage: Usage) -> None:
        if usage != _NOTHING:
            self._sent_back_tokens.setdefault(kind, TokenSum()).add(usage)


def _least(one: Usage, other: Usage) -> Usage:
    return Usage(
        min(one.prompt_tokens, other.prompt_tokens),
        min(one.completion_tokens, other.completion_tokens),
        min(one.cached_tokens, other.cached_tokens),
    )


def _add_counts(counts: dict[str, int], others: Mapping[str, int]) -> None:
    for name, count in others.items():
        counts[name] = counts.get(name, 0) + count


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items())}
