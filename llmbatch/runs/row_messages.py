"""Rows, requests and outcomes in; the messages that a run and its row workers exchange, out, and back.

    run -> row worker    Begin once; then Ready (the engine is up), Block and Outcomes again and again
    row worker -> run    Need once; Filled once or more for each block, Settled once for each Outcomes; Broken is the last

As in ``engines.messages`` a message holds many rows, as plain tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from llmbatch.core.errors import RunError
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Completion, Cursor, Failure, FailureKind, Outcome, Request, Reused, Row, Usage
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.messages import Answered, Ask, Asked, answered, ask, outcomes_of
from llmbatch.folder.bounds import Bounds
from llmbatch.runs.window import OpenWindow, Plan
from llmbatch.sources.reader import HasRows, each_row

WindowKey = tuple[int, int]
"""A window of a row worker: the number of its block, and which it is of those that the block became."""
PlainReused = tuple[int, int, int, bool]
"""What of a record was not computed for it: tokens of the prompt, of the answer and cached ones; whether it is from the cache."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The job, as plain data, whose rows are to be worked on.

    ``identity`` is what results depend on besides, as the run has it: prompts, schemas and code are read again from their files.
    ``folder`` is the run's. ``context_length``: where it is known before the engine is up.
    """

    version: str
    job: Mapping[str, Any]
    identity: Mapping[str, str]
    folder: str
    log: str
    context_length: int | None


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is up."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class Need:
    """There is work for the engine."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that follow one another: a window, or several where they hold more than one may. ``stop``: where the next row is.

    The rows themselves, or how many are to be read from ``start`` on.
    """

    number: int
    rows: list[tuple[Any, ...]] | int
    start: tuple[int, ...]
    stop: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of requests of a worker's windows. ``reused``: where those are from that were not computed for their row."""

    serial: int
    rows: list[tuple[Any, ...]]
    reused: dict[int, Literal["row", "cache"]]


@dataclass(frozen=True, slots=True)
class Filled:
    """A window that is planned. ``last``: its block has no more."""

    key: WindowKey
    last: bool
    bounds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]  # its first row, its last, and the next
    order: list[int]
    lines: dict[int, bytes]
    entries: list[bytes]
    ledger: Mapping[str, Any]
    requests: Ask
    digests: list[bytes | None]  # of those requests
    groups: dict[int, int]  # the place of a request -> its group
    plan: Plan | None
    share: float


@dataclass(frozen=True, slots=True)
class Rows:
    """What became of rows of one window: records of those that are finished, journal entries of those that are not."""

    key: WindowKey
    finished: list[tuple[int, bytes, PlainReused | None]]
    entries: list[bytes]
    ledger: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of ``Outcomes``: what is to be asked next is tokenized."""

    serial: int
    rows: list[Rows]
    requests: Ask | None = None
    digests: list[bytes | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Broken:
    """The run cannot go on: an error that a person is to be told, by the name of its class. ``begun``: the job was read before."""

    kind: str
    message: str
    begun: bool


def block(number: int, rows: Sequence[Row] | int, start: Cursor, stop: Cursor | None) -> Block:
    """The rows as one message, or how many there are from ``start`` on."""
    packed: list[tuple[Any, ...]] | int = rows if isinstance(rows, int) else [_packed(row) for row in rows]
    return Block(number, packed, tuple(start), None if stop is None else tuple(stop))


def rows_of(message: Block, source: Callable[[], HasRows]) -> Iterator[Row]:
    """The rows of a message; ``source`` gives what they are read from where they are not in it.

    Raises ``RunError`` where it has fewer by now, and ``ReadError``.
    """
    if isinstance(message.rows, int):
        yield from read_block(source(), Cursor(*message.start), message.rows)
        return
    for index, row_id, data, cursor, failure in message.rows:
        known = None if failure is None else Failure(FailureKind(failure[0]), failure[1])
        yield Row(index, row_id, data, Cursor(*cursor), known)


def read_block(source: HasRows, start: Cursor, count: int) -> Iterator[Row]:
    """So many rows of an input from ``start`` on. Raises ``RunError`` where there are fewer by now, and ``ReadError``."""
    left = count
    for row in islice(each_row(source, start), count):
        left -= 1
        yield row
    if left:
        raise RunError("the input changed while it was read: run the same command again")


def _packed(r: Row) -> tuple[Any, ...]:
    failure = None if r.failure is None else (r.failure.kind.value, r.failure.message)
    return r.index, r.id, r.data, tuple(r.cursor), failure


def outcomes(serial: int, found: Sequence[Outcome]) -> Outcomes:
    """The outcomes as one message."""
    reused = {
        place: outcome.reused_from
        for place, outcome in enumerate(found)
        if isinstance(outcome, Completion) and outcome.reused_from is not None
    }
    return Outcomes(serial, answered(found, Usage(), 0.0).rows, reused)


def outcomes_in(message: Outcomes) -> list[Outcome]:
    """The outcomes of a message."""
    found = outcomes_of(Answered(message.rows, (0, 0, 0), 0.0))
    for place, source in message.reused.items():
        outcome = found[place]
        if isinstance(outcome, Completion):
            found[place] = replace(outcome, reused_from=source)
    return found


def filled(key: WindowKey, window: OpenWindow, *, last: bool) -> Filled:
    """A window that a worker planned, as a message. Its works stay."""
    bounds, places = window.bounds, {request.key: place for place, request in enumerate(window.requests)}
    return Filled(
        key,
        last,
        (tuple(bounds.start), tuple(bounds.last), None if bounds.stop is None else tuple(bounds.stop)),
        window.order,
        window.lines,
        window.entries,
        window.ledger.as_dict(),
        ask(window.requests),
        window.digests,
        {places[request]: group for request, group in window.groups.items()},
        window.plan,
        window.share,
    )


def window_of(message: Filled, number: int, asked: Asked) -> OpenWindow:
    """The window of a message, as the one with this number; its works are the worker's."""
    start, last, stop = message.bounds
    window = OpenWindow(
        Bounds(number, Cursor(*start), Cursor(*last), None if stop is None else Cursor(*stop), len(message.order))
    )
    window.order, window.lines, window.entries = message.order, message.lines, message.entries
    window.ledger = Ledger.from_dict(message.ledger)
    window.requests = requests = asked.requests(message.requests)
    window.digests = message.digests
    window.groups = {requests[place].key: group for place, group in message.groups.items()}
    window.plan, window.share = message.plan, message.share
    return window


def reuse_of(reused: Reused | None) -> PlainReused | None:
    """The part of a record that was not computed for it, as plain data."""
    if reused is None:
        return None
    usage = reused.usage
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, reused.cached


def reused_in(plain: PlainReused) -> Reused:
    """The same back."""
    return Reused(Usage(*plain[:3]), plain[3])


def asked_in(message: Settled, asked: Asked) -> list[tuple[Request, bytes | None]]:
    """What is to be asked next, each with its digest."""
    if message.requests is None:
        return []
    return list(zip(asked.requests(message.requests), message.digests, strict=True))


__all__ = [
    "Begin", "Block", "Broken", "Filled", "Need", "Outcomes", "PlainReused", "Ready", "Rows", "Settled", "WindowKey", "asked_in",
    "block", "filled", "outcomes", "outcomes_in", "read_block", "reuse_of", "reused_in", "rows_of", "window_of",
]  # fmt: skip
