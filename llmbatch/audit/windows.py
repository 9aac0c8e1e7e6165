"""The parts and journals of a run folder in, what is wrong with them out, and what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from llmbatch.audit.finding import SHOWN, Finding
from llmbatch.core.errors import LlmbatchError
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_from_dict
from llmbatch.core.types import RowId
from llmbatch.core.words import first_few
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import read_journal
from llmbatch.folder.order import Order, in_input_order, sound
from llmbatch.folder.parts import Meta, Parts

_PLACES = 1 << 14  # that are looked at at a time


@dataclass(slots=True)
class Windows:
    """What was found. ``ledger`` is counted anew from the sealed records; of no row it says that its answer was reused."""

    parts: Parts
    sealed: dict[int, Meta] = field(default_factory=dict)
    open: dict[int, tuple[Bounds, str | None]] = field(
        default_factory=dict
    )  # with a journal: bounds, digest of the input
    ledger: Ledger = field(default_factory=Ledger)
    rows_in_journals: int = 0
    order: Order | None = None  # of the corpus, where windows follow one

    def records(self) -> Iterator[tuple[int, RowId]]:
        """(index, id) of every record, in order; one window is in memory at a time. What cannot be read is left out.

        Of windows that follow an order of the corpus those that are open are in memory together.
        """
        windows = (self._records(window) for window in sorted(self.sealed.keys() | self.open.keys()))
        return chain.from_iterable(windows) if self.order is None else self._merged()

    def _merged(self) -> Iterator[tuple[int, RowId]]:
        replays = [replay for window in sorted(self.open) if (replay := self.parts.replay(window)) is not None]
        journals = [[line for _, line in sorted(replay.lines.items())] for replay in replays]
        for line in in_input_order([*map(self.parts.path, sorted(self.sealed)), *journals]):
            record = json.loads(line)
            yield int(record["index"]), record["id"]

    def _records(self, window: int) -> Iterator[tuple[int, RowId]]:
        if window in self.sealed:
            lines = self.parts.path(window).read_bytes().splitlines()
        else:
            replay = self.parts.replay(window)
            lines = [line for _, line in sorted(replay.lines.items())] if replay is not None else []
        for line in lines:
            try:
                record = json.loads(line)
                yield int(record["index"]), record["id"]
            except (ValueError, KeyError, TypeError):
                continue

    def bounds(self) -> dict[int, Bounds]:
        """The bounds of every window that is known, by number."""
        return {window: meta.bounds for window, meta in self.sealed.items()} | {
            w: bounds for w, (bounds, _) in self.open.items()
        }


def check_parts(windows: Windows) -> Finding:
    """Look at every sealed part: its checksum, its lines, its ledger."""
    sealed, _ = windows.parts.scan()
    check = Finding("parts", f"{len(sealed)} sealed parts: checksums, rows in order, ledgers")
    for window in sorted(sealed):
        path = windows.parts.path(window)
        try:
            meta = windows.parts.meta(window)
            content = path.read_bytes()
            said = Ledger.from_dict(meta.ledger)
        except (LlmbatchError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            check.problem(str(error) if isinstance(error, LlmbatchError) else f"{path}: cannot be read: {error!r}")
            continue
        windows.sealed[window] = meta
        if hashlib.sha256(content).hexdigest() != meta.sha256:
            check.problem(f"{path}: its checksum is not what was sealed; the file was changed or damaged")
            continue
        counted = _count(path, content, meta.bounds, check, windows.order)
        windows.ledger.merge(counted)
        if _sums(counted) != _sums(said) or (
            not said.rows_folded and not said.rows_cached and counted.as_dict() != said.as_dict()
        ):
            check.problem(f"{path}: the ledger in its meta file is not the sum of its records")
    return check


def check_windows(windows: Windows, *, finished: bool, some_rows: bool, to_the_end: bool = True) -> Finding:
    """Look at journals, and whether window follows on window. ``some_rows``: rows may be left out between them.

    ``to_the_end``: a run that is finished has read its input to the end.
    """
    sealed, journals = windows.parts.scan()
    check = Finding("windows", f"{len(journals)} open windows with a journal; windows follow one another without a gap")
    for window in sorted(journals):
        _check_journal(windows, window, check)
    for path in sorted(windows.parts.folder.glob("part-*.meta.json")):
        number = int(path.name.removeprefix("part-").partition(".")[0])
        if number not in sealed | journals:
            check.problem(f"{windows.parts.path(number)}: is gone; its meta file is still there")
    bounds = windows.bounds()
    known = sorted(bounds.keys() | sealed)
    for before, after in pairwise(known):
        if after != before + 1 or before not in bounds or after not in bounds:
            continue
        stop, start = bounds[before].stop, bounds[after].start
        expected = bounds[before].last.index + 1 if stop is None else stop.index
        if start.index < expected or (start.index > expected and not some_rows):
            check.problem(f"window {before} ends before row {expected}, window {after} begins at row {start.index}")
    if missing := sorted(set(range(known[-1] + 1)) - set(known)) if known else []:
        text = f"windows {first_few(missing, SHOWN)} have neither a part nor a journal"
        if finished:
            check.problem(text)
        else:
            check.seen += f"; {text}, their rows are owed"
    if finished and journals:
        check.problem(
            f"the run is finished, but of windows {first_few(sorted(journals), SHOWN)} only the journals are there"
        )
    to_the_end = to_the_end and not some_rows
    if finished and known and known[-1] in bounds and bounds[known[-1]].stop is not None and to_the_end:
        check.problem(f"the run is finished, but the parts after window {known[-1]} are gone")
    return check


def check_order(order: Order) -> Finding:
    """Look at the order of a corpus: whether it is what was written, and has every row once."""
    check = Finding("order", f"{order.rows} rows of the input in an order of their own, each once")
    try:
        seen = bytearray(order.rows)
        for start in range(0, order.rows, _PLACES):
            for place in order.places(start, _PLACES):
                if place.cursor.index >= order.rows or seen[place.cursor.index]:
                    check.problem(f"{order.folder}: the row {place.cursor.index} is not in it, or twice")
                else:
                    seen[place.cursor.index] = 1
        if not sound(order):
            check.problem(f"{order.folder}: its checksum is not what was written; the file was changed or damaged")
    except LlmbatchError as error:
        check.problem(str(error))
    return check


def _count(path: Path, content: bytes, bounds: Bounds, check: Finding, order: Order | None) -> Ledger:
    ledger = Ledger()
    indexes = None if order is None else order.indexes(bounds)
    first, end = (bounds.start.index, bounds.last.index) if not indexes else (indexes[0], indexes[-1])
    last = first - 1
    found: list[int] = []
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = record_from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            check.problem(f"{path}:{number}: is no record: {error!r}")
            continue
        if record.index <= last:
            check.problem(f"{path}:{number}: row {record.index} comes twice or out of order")
        last = record.index
        ledger.add(record)
        found.append(record.index)
    if len(lines) != bounds.rows or last != end:
        check.problem(
            f"{path}: has {len(lines)} records up to row {last}; its meta file says {bounds.rows} up to row {end}"
        )
    elif indexes is not None and found != indexes:
        check.problem(f"{path}: has other rows than the order of the corpus says")
    return ledger


def _check_journal(windows: Windows, window: int, check: Finding) -> None:
    path = windows.parts.path(window).with_suffix(".journal")
    try:
        replay, good = read_journal(path)
        with path.open("rb") as file:
            file.seek(good)
            rest = file.read()
    except FileNotFoundError:
        return  # sealed in this moment by a run that is going on
    except (LlmbatchError, OSError) as error:
        check.problem(str(error))
        return
    if b"\n" in rest:  # what a kill leaves is one entry without its end
        check.problem(
            f"{path}: from byte {good} on it is damaged; the rows that were finished after that are owed again"
        )
    if replay is None:
        return  # killed while it was begun: its rows are owed
    bounds = replay.bounds
    windows.open[window] = bounds, replay.input_sha256
    windows.rows_in_journals += len(replay.lines)
    ours: Container[int] = range(bounds.start.index, bounds.last.index + 1)
    if windows.order is not None:
        ours = frozenset(windows.order.indexes(bounds))
    strangers = [index for index in replay.lines if index not in ours]
    if strangers or len(replay.lines) > bounds.rows:
        check.problem(f"{path}: has records of rows that its window does not have: {first_few(strangers, SHOWN)}")


def _sums(ledger: Ledger) -> tuple[Any, ...]:
    """What can be compared although of the counted records it is not known which answers were reused."""
    return ledger.by_status, ledger.by_failure, ledger.examples, ledger.attempts, ledger.rows_retried, ledger.total
