"""Rows in, planned windows out, one by one; ``Ahead`` takes them in a thread of its own, ahead of the engine.

A window is read, rendered and tokenized here, what its journal already holds is replayed, and the rest is planned. Rows that need
no engine (malformed, impossible to render, too long) get their record at once.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmbatch.core.digest import Digests, pack
from llmbatch.core.errors import InputChanged
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_from_dict
from llmbatch.core.types import (
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Prompt,
    Record,
    Refusal,
    Request,
    Row,
    Status,
)
from llmbatch.engines.base import EngineInfo
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.input import input_digest
from llmbatch.folder.journal import Replay, outcome_entry
from llmbatch.folder.parts import Parts
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import PlanSettings, plan_window
from llmbatch.programs.work import Work
from llmbatch.prompt.base import Rendered
from llmbatch.run.window import OpenWindow
from llmbatch.sources.base import Source
from llmbatch.sources.reader import Reader

Cached = Callable[[Iterable[bytes]], dict[bytes, Completion]]
"""Digests of requests -> the answers of earlier runs, for those that have one."""


@dataclass(frozen=True, slots=True)
class Front:
    """What turns rows into requests. ``tokenize`` is called from the reader's thread; ``info`` blocks until the engine is ready."""

    source: Source
    render: Callable[[Row], Rendered | Failure]
    begin: Callable[[Row, Rendered], Work]
    keep: Callable[[Row], Mapping[str, Any] | None]
    tokenize: Callable[[list[Prompt]], list[Any]]
    info: Callable[[], EngineInfo]
    plan: PlanSettings
    lengths: LengthEstimate
    rows: frozenset[int] | None = None  # only these indexes
    cached: Cached | None = None


@dataclass(slots=True)
class Resume:
    """What earlier sessions left: the windows that are sealed, and those with a journal. By number."""

    sealed: dict[int, Bounds] = field(default_factory=dict)
    journals: dict[int, Bounds] = field(default_factory=dict)


def read_windows(front: Front, parts: Parts, resume: Resume, *, window: int, characters: int) -> Iterator[OpenWindow]:
    """Every window that is not sealed, in order, planned and with its journal open.

    Where the input fails half-way the rows before still come, and then ``ReadError`` is raised.
    """
    reader = Reader(front.source)
    number, start = 0, Cursor(0)
    after: Cursor | None = (
        None  # the last row of a window at whose end the input ended: what comes after it was not there then
    )
    starts = {known: bounds.start.index for known, bounds in (*resume.sealed.items(), *resume.journals.items())}
    while True:
        if number in resume.sealed:
            bounds = resume.sealed[number]
        else:
            replay = parts.reopen(number) if number in resume.journals else None
            if replay is not None:
                opened = _read_again(front, reader, replay)
            else:
                # the next window that is known: this one, whose own journal was lost, ends there
                limit = starts[min(later)] if (later := [n for n in starts if n > number]) else None
                read = _read_new(front, reader, number, start, after, limit, window, characters)
                if read is None:
                    return
                opened = read
                opened.window.input_sha256 = input_digest(front.source, opened.window.bounds)
                parts.open(opened.window.bounds, opened.window.input_sha256)
            bounds = opened.window.bounds
            _plan(front, opened)
            yield opened.window
        number += 1
        start, after = (bounds.stop, None) if bounds.stop is not None else (bounds.last, bounds.last)


@dataclass(slots=True)
class _Opened:
    """A window that was read and rendered, and is not yet planned."""

    window: OpenWindow
    rows: dict[int, Row] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)


def _read_new(
    front: Front,
    reader: Reader,
    number: int,
    start: Cursor,
    after: Cursor | None,
    limit: int | None,
    size: int,
    characters: int,
) -> _Opened | None:
    """The next ``size`` rows, or all up to the row with index ``limit``; ``None`` where there are none."""
    reader.seek(start)
    if after is not None and reader.next is not None and reader.next.index == after.index:
        reader.take()
    while front.rows is not None and reader.next is not None and reader.next.index not in front.rows:
        reader.take()
    if (first := reader.next) is None:
        if reader.failure is not None:
            raise reader.failure
        return None
    opened = _Opened(OpenWindow(Bounds(number, first.cursor, first.cursor, None, 0)))
    last, length = first, 0
    while (row := reader.next) is not None:
        if row.index >= limit if limit is not None else len(opened.window.order) >= size or length >= characters:
            break
        reader.take()
        if front.rows is None or row.index in front.rows:
            last = row
            length += _take(front, opened, row)
    stop = reader.next.cursor if reader.next is not None else None
    opened.window.bounds = Bounds(number, first.cursor, last.cursor, stop, len(opened.window.order))
    return opened


def ledger_of(replay: Replay) -> Ledger:
    """The account of the rows that a journal holds, before its window is read again."""
    ledger = Ledger()
    for index, line in replay.lines.items():
        if (record := _record(line)) is not None:
            ledger.add(record, replay.reused.get(index))
    return ledger


def _read_again(front: Front, reader: Reader, replay: Replay) -> _Opened:
    """A window whose journal is there: the same rows, without the work that is done. Raises ``InputChanged``."""
    bounds = replay.bounds
    opened = _Opened(OpenWindow(bounds))
    window = opened.window
    window.input_sha256 = replay.input_sha256
    reader.seek(bounds.start)
    while len(window.order) < bounds.rows and (row := reader.next) is not None:
        reader.take()
        if front.rows is None or row.index in front.rows:
            line = replay.lines.get(row.index)
            record = None if line is None else _record(line)
            if line is None or record is None:
                _take(front, opened, row, replay)
                continue
            window.order.append(row.index)
            window.lines[row.index] = line
            window.ledger.add(record, replay.reused.get(row.index))
    if reader.failure is not None:
        raise reader.failure
    if len(window.order) < bounds.rows:
        raise InputChanged(
            f"the input ends before row {bounds.last.index}, and this run has read that far before. Restore it, or give another "
            "--output to begin anew"
        )
    return opened


def _take(front: Front, opened: _Opened, row: Row, replay: Replay | None = None) -> int:
    """Render one row and begin its work; returns the length of its prompt in characters."""
    window = opened.window
    window.order.append(row.index)
    rendered = row.failure or front.render(row)
    if isinstance(rendered, Failure):
        window.finish(
            Record(
                row.index, row.id, rendered.kind.status, failure=rendered, input=front.keep(row) if row.data else None
            )
        )
        return 0
    work = front.begin(row, rendered)
    window.works[row.index] = work
    opened.rows[row.index] = row
    requests = work.start()
    outcomes = replay.outcomes.get(row.index, ()) if replay is not None else ()
    if outcomes:
        front.info()  # what follows a failure depends on the context length, as it did the first time
    for outcome in outcomes:
        if any(request.key == outcome.key for request in requests):
            requests = [r for r in requests if r.key != outcome.key] + work.feed(outcome)
    if work.record is not None:
        window.finish(replace(work.record, input=front.keep(row)), work.reused)
    opened.requests.extend(requests)
    prompt = rendered.prompt
    return sum(len(m["content"]) for m in prompt.messages) if prompt.messages is not None else len(prompt.text or "")


def _plan(front: Front, opened: _Opened) -> None:
    """Tokenize a window's requests and put them in order; what cannot run is finished, and what the cache knows answered."""
    window = opened.window
    requests = _tokenized(front, window, opened.requests)
    if front.cached is not None:
        requests = _asked_anew(front, front.cached, window, requests)
    if not requests:
        return
    info = front.info()
    limits = Capacity(
        context_length=info.context_length,
        kv_cache_tokens=info.kv_cache_tokens,
        block_size=info.block_size,
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.details.get("max_num_batched_tokens"),
    )
    plan = plan_window(requests, limits, front.plan, front.lengths, last=window.bounds.stop is None)
    window.plan = plan
    for position, failure in plan.too_long.items():
        _refuse(window, requests[position], failure, front)
    window.requests = [requests[position] for position in (*plan.order, *plan.folded)]
    window.digests = {requests[position].key: digest for position, digest in plan.digests.items()}


def _tokenized(front: Front, window: OpenWindow, requests: Sequence[Request]) -> list[Request]:
    """The requests with their token ids, without those that have none."""
    known: list[Request] = list(requests)
    unknown = [i for i, r in enumerate(known) if r.token_ids is None]
    refused: dict[int, Failure] = {}
    for i, ids in zip(unknown, front.tokenize([known[i].prompt for i in unknown]), strict=True):
        if isinstance(ids, Failure):
            refused[i] = ids
        else:
            known[i] = _with_ids(known[i], array("I", ids))  # a ninth of a list's memory
    for i, failure in refused.items():
        _refuse(window, known[i], failure, front)
    return [r for i, r in enumerate(known) if i not in refused]


def _asked_anew(front: Front, cached: Cached, window: OpenWindow, requests: list[Request]) -> list[Request]:
    """Give the answers that the cache has to their rows; returns what it does not know, of what then follows too."""
    unknown: list[Request] = []
    folder = Digests()
    while requests:
        digests = [None if (packed := pack(r)) is None else folder.digest(r, packed) for r in requests]
        answers = cached(digest for digest in digests if digest is not None)
        following: list[Request] = []
        for request, digest in zip(requests, digests, strict=True):
            answer = answers.get(digest) if digest is not None else None
            work = window.works.get(request.key.index)
            if answer is None or work is None:
                unknown.append(request)
                continue
            completion = replace(answer, key=request.key)
            following += work.feed(completion)
            if work.record is not None:
                window.finish(replace(work.record, input=front.keep(work.row)), work.reused)
            else:
                window.entries.append(outcome_entry(completion))
        requests = _tokenized(front, window, following)
    return [r for r in unknown if r.key.index in window.works]


def _with_ids(r: Request, ids: array[int]) -> Request:
    """``dataclasses.replace``, at a tenth of its cost: this is done for every request."""
    return Request(r.key, r.prompt, r.sampling, r.constraint, r.seed, r.max_tokens, r.lora, r.partial, ids)


def _refuse(window: OpenWindow, request: Request, failure: Failure, front: Front) -> None:
    work = window.works.get(request.key.index)
    if work is None:
        return  # another request of the same row was refused before
    work.feed(Refusal(request.key, failure))
    if work.record is not None:
        record = work.record
        first = request.key.step == 0 and request.key.attempt == 1
        if first and failure.kind is FailureKind.TOO_LONG and front.plan.overflow == "skip":
            record = replace(record, status=Status.SKIPPED)
        window.finish(replace(record, input=front.keep(work.row)), work.reused)


def _record(line: bytes) -> Record | None:
    """The record that a journal holds; ``None`` for what is not one, and then the row is owed again."""
    try:
        return record_from_dict(json.loads(line))
    except (ValueError, KeyError, TypeError):
        return None
