"""An input in, its windows, planned, out, one by one; ``ReadAhead`` takes them in a thread of its own, ahead of the engine.

Windows that earlier sessions left are found again here. New ones are cut from the input, and filled here or by row workers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from llmbatch.core.errors import InputChanged, JobError, ReadError, RunError
from llmbatch.core.types import Cursor, Row
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.input import input_digest
from llmbatch.folder.journal import Replay
from llmbatch.folder.parts import Parts
from llmbatch.folder.records import part_lines, record_on
from llmbatch.job.run_settings import RunSettings
from llmbatch.job.step import size_of
from llmbatch.programs.work import Work
from llmbatch.runs.filling import Filling, Opened
from llmbatch.runs.pacing import Pacing
from llmbatch.runs.row_workers import Given, RowWorkers
from llmbatch.runs.window import OpenWindow
from llmbatch.sources.base import Block, Counting, Source
from llmbatch.sources.reader import Reader, again

_MANY = 100  # rows of a first window that all fail, before that is said in place of going on


@dataclass(slots=True)
class Resume:
    """What earlier sessions left: the windows that are sealed, and those with a journal. By number."""

    sealed: dict[int, Bounds] = field(default_factory=dict)
    journals: dict[int, Bounds] = field(default_factory=dict)

    @property
    def last(self) -> Bounds | None:
        """The last window that is known."""
        known = {**self.sealed, **self.journals}
        return known[max(known)] if known else None


class Extent(NamedTuple):
    """How far a new window goes: up to the row with the index ``stop``, full or not, or else over at most so many ``rows``."""

    stop: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads one input in windows. ``rows`` are the only indexes to be run, None for all.

    ``in_blocks``: they stand together in blocks, and no window goes beyond one. ``governor`` says how many rows are needed, None:
    all. ``workers`` fill the windows behind those that are known and the first, where there are any.
    """

    source: Source
    filling: Filling
    parts: Parts
    run: RunSettings
    rows: Container[int] | None = None
    in_blocks: bool = False
    governor: Pacing | None = None
    workers: RowWorkers | None = None
    _digesting: threading.Lock = field(default_factory=threading.Lock)

    def windows(self, resume: Resume) -> Iterator[OpenWindow]:
        """Every window that is not sealed, in order, planned and with its journal open.

        Where the input fails half-way the rows before still come, and then ``ReadError`` is raised.
        """
        reader = Reader(self.source)
        number, start = 0, Cursor(0)
        # the last row of a window at whose end the input ended: what comes after it was not there then
        after: Cursor | None = None
        starts = {known: bounds.start.index for known, bounds in (*resume.sealed.items(), *resume.journals.items())}
        last_known = max(starts, default=0)
        while True:
            if number in resume.sealed:
                bounds = resume.sealed[number]
                if self.governor is not None:
                    self.governor.sealed(map(record_on, part_lines([self.parts.path(number)])))
            else:
                replay = self.parts.reopen(number) if number in resume.journals else None
                if replay is not None:
                    opened = self._read_again(reader, replay)
                else:
                    # up to the next window that is known: the rows before it are those of the windows that were lost
                    limit = None
                    if later := [n for n in starts if n > number]:
                        first = start.index if after is None else after.index + 1
                        limit = self._share(first, starts[min(later)], min(later) - number)
                    room = None if self.governor is None or limit is not None else self.governor.room()
                    if room == 0:
                        return
                    read = self._read_new(reader, number, start, after, Extent(limit, room))
                    if read is None:
                        return
                    opened = read
                    self._open(opened.window)
                bounds = opened.window.bounds
                dealing = None
                if self.workers is not None and number >= last_known:
                    dealing = _Dealing(self, self.workers, reader, bounds)
                    dealing.deal_while_it_starts()
                self.filling.plan(opened)
                if self.governor is not None:
                    self.governor.begun(opened.window.order)
                yield opened.window
                if dealing is not None:
                    yield from dealing.windows()
                    return
            number += 1
            start, after = _behind(bounds)

    def works_of(self, number: int) -> dict[int, Work]:
        """The works of the unfinished rows of a window of this session, as far as its journal has them. Beside all that goes on."""
        replay = self.parts.replay(number)
        if replay is None:
            raise RunError(
                f"{self.parts.folder}: the journal of window {number} is gone, and with it how far its rows have come: run the "
                "same command again, and they are asked anew"
            )
        if self._digest(replay.bounds) != replay.input_sha256:
            raise InputChanged(
                f"{self.source.locate(replay.bounds.start)}: the input changed while it was read. Restore it, or give another "
                "--output to begin anew"
            )
        return self._read_again(Reader(self.source), replay, same=True).window.works

    def _digest(self, bounds: Bounds) -> str | None:
        with self._digesting:  # some sources keep for it what they have just read
            return again(partial(input_digest, self.source, bounds))

    def _open(self, window: OpenWindow) -> None:
        """Begin the journal of a new window."""
        if not window.bounds.window and self.rows is None and self.run.check_first:
            _see_first(window)
        window.input_sha256 = self._digest(window.bounds)
        self.parts.open(window.bounds, window.input_sha256)

    def _read_new(
        self, reader: Reader, number: int, start: Cursor, after: Cursor | None, extent: Extent
    ) -> Opened | None:
        """The next rows, as many as make a window within its ``extent``; ``None`` where there are none."""
        opened = Opened(OpenWindow(Bounds(number, start, start, None, 0)))
        full = room = self.filling.prepare.room(self.run)
        if extent.rows is not None:
            room = room._replace(rows=min(room.rows, extent.rows))

        def take(row: Row) -> None:
            self.filling.take(opened, row)

        bounds = self._cut(reader, opened.window.bounds, after, extent.stop, lambda: opened.is_full(room), take)
        if bounds is None:
            return None
        opened.window.bounds, opened.window.share = bounds, opened.share_of(full)
        return opened

    def _cut(
        self,
        reader: Reader,
        bounds: Bounds,
        after: Cursor | None,
        stop_at: int | None,
        is_full: Callable[[], bool],
        take: Callable[[Row], None],
    ) -> Bounds | None:
        """Take the next rows: up to the row with the index ``stop_at``, or else until it is full. ``None`` where there are none."""
        reader.seek(bounds.start)
        if after is not None and reader.next is not None and reader.next.cursor.index == after.index:
            reader.take()
        while self.rows is not None and reader.next is not None and reader.next.index not in self.rows:
            reader.take()
        if (first := reader.next) is None:
            if reader.failure is not None:
                raise reader.failure
            return None
        last, taken = first.cursor, 0
        while (row := reader.next) is not None:
            ours = self.rows is None or row.index in self.rows
            if stop_at is None:
                if is_full():
                    break
            elif row.cursor.index >= stop_at:
                break
            if self.in_blocks and not ours:
                break
            reader.take()
            if ours:
                last = row.cursor
                taken += 1
                take(row)
        return Bounds(bounds.window, first.cursor, last, reader.next.cursor if reader.next is not None else None, taken)

    def _share(self, first: int, end: int, windows: int) -> int:
        """Where the first of so many lost windows ends, whose rows have these indexes: each of them had one row at least."""
        if windows == 1:
            return end
        rows = [index for index in range(first, end) if self.rows is None or index in self.rows]
        if self.in_blocks and windows == 1 + sum(after != before + 1 for before, after in pairwise(rows)):
            return end  # each of them had one block
        return rows[len(rows) // windows]

    def _read_again(self, reader: Reader, replay: Replay, *, same: bool = False) -> Opened:
        """A window whose journal is there: the same rows, without the work that is done. Raises ``InputChanged``.

        ``same``: the journal is of this session.
        """
        bounds = replay.bounds
        opened = Opened(OpenWindow(bounds))
        window = opened.window
        window.input_sha256 = replay.input_sha256
        reader.seek(bounds.start)
        while len(window.order) < bounds.rows and (row := reader.next) is not None:
            reader.take()
            if self.rows is None or row.index in self.rows:
                line = replay.lines.get(row.index)
                record = replay.record(row.index)
                if line is None or record is None:
                    self.filling.take(opened, row, replay.outcomes.get(row.index, ()), same=same)
                    continue
                window.order.append(row.index)
                window.lines[row.index] = line
                window.ledger.add(record, replay.reused.get(row.index))
        if reader.failure is not None:
            raise reader.failure
        window.share = opened.share_of(self.filling.prepare.room(self.run))
        if len(window.order) < bounds.rows:
            raise InputChanged(
                f"the input ends before row {bounds.last.index}, and this run has read that far before. Restore it, or give "
                "another --output to begin anew"
            )
        return opened


class _Dealing:
    """The input behind a window in; the windows that row workers make of it, in order, out.

    Blocks of rows are dealt ahead, one more than there are workers.
    """

    def __init__(self, reading: Reading, workers: RowWorkers, reader: Reader, behind: Bounds) -> None:
        self._reading = reading
        self._workers = workers
        self._reader = reader
        self._room = reading.filling.prepare.room(reading.run)
        seeker = None if reading.rows is not None else reading.source.seeks()
        self._counts = seeker if isinstance(seeker, Counting) else None
        self._number = behind.window + 1
        self._last = behind  # what was cut last
        self._given: deque[Given] = deque()
        self._ended = False
        self._failure: ReadError | None = None

    def deal_while_it_starts(self) -> None:
        """Give the workers a block, and more as long as the engine is not up, and the window before waits for it."""
        self._deal(1)
        while not self._workers.engine_is_up and self._deal(1):
            continue

    def windows(self) -> Iterator[OpenWindow]:
        """The windows, planned and with their journals open. Raises ``ReadError`` once the last one before was given out."""
        self._deal(self._workers.count)
        while self._given:
            given = self._given.popleft()
            for window in given.windows(self._number, self._reading.filling, self._room, self._reading.source):
                self._number += 1
                self._reading._open(window)
                yield window
                self._deal(self._workers.count)  # behind what is there already: to read may take long
            self._deal(self._workers.count)
        if self._failure is not None:
            raise self._failure

    def _deal(self, blocks: int) -> bool:
        """Give the workers at most so many blocks, as far as they are to have them; whether any was given."""
        before = len(self._given)
        while not self._ended and blocks and len(self._given) <= self._workers.count:
            blocks -= 1
            try:
                self._deal_one()
            except ReadError as error:
                self._ended, self._failure = True, error
        return len(self._given) > before

    def _deal_one(self) -> None:
        if (
            self._counts is not None
            and self._last.stop is not None
            and self._deal_counted(self._counts, self._last.stop)
        ):
            return
        rows: list[Row] = []
        size, (start, after) = 0, _behind(self._last)

        def take(row: Row) -> None:
            nonlocal size
            rows.append(row)
            size += size_of(row.data)

        cut = self._reading._cut(
            self._reader,
            Bounds(0, start, start, None, 0),
            after,
            None,
            lambda: self._room.is_full(len(rows), len(rows), size),
            take,
        )
        if cut is None:
            self._ended = True
        else:
            self._last = cut
            self._given.append(self._workers.give(rows, cut.start, cut.stop))

    def _deal_counted(self, counts: Counting, start: Cursor) -> bool:
        """Give a block of rows that are counted here and read by whoever gets it; whether there is one.

        The last rows of an input, which may be growing, and those before a place that cannot be read, are read here.
        """
        try:
            block = counts.block(start, self._room.rows, self._room.characters)
        except ReadError:
            block = Block(0, None)
        if block.stop is None:
            self._counts = None
            return False
        self._last = Bounds(0, start, start, block.stop, block.rows)
        self._given.append(self._workers.give(block.rows, start, block.stop))
        return True


def _behind(bounds: Bounds) -> tuple[Cursor, Cursor | None]:
    """Where what follows begins, and the row that is to be passed before, where that was the last one of its time."""
    return (bounds.stop, None) if bounds.stop is not None else (bounds.last, bounds.last)


def _see_first(window: OpenWindow) -> None:
    """Raises ``JobError`` where the input goes on behind a first window of which no row can be sent.

    Then the prompt, or the input, is not what was meant, and nobody wants millions of records that say so. Of a short input they
    are there at once.
    """
    worst = window.ledger.worst
    if (
        window.bounds.stop is None
        or worst is None
        or sum(window.ledger.by_failure.values()) < max(_MANY, len(window.order))
    ):
        return
    others = "" if worst.rows == len(window.order) else f", most of them for {worst.kind}"
    raise JobError(
        f"none of the first {len(window.order):,} rows can be sent to a model{others}: {worst.message}. Nothing was sent. If the "
        "rows behind them are worth it, --set run.check_first=false goes on with a record for each that says why"
    )
