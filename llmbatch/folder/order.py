"""The order of a run's corpus in its folder: written once, whole or not at all; read by slices; and results back in input order.

In the folder ``order/``:

    order.json      which rows, of which input and job it is, and what was read for it. Its rename is the commit.
    places          for each row, in the order in which rows are run: its ``COLUMNS`` as 64-bit numbers
    rows-00012      where the input cannot be entered at any row: copies of its rows, a line each
    .work-*         what a pass that goes on, or was killed, has there

A run that has an order reads its windows by it: ``index`` in the bounds of a window is then a place in that order, and not in the
input. A part holds its rows by their index all the same, so that the parts together are merged into the order of the input.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import FolderError
from llmbatch.core.faults import point
from llmbatch.core.files import atomic, atomic_write, writing
from llmbatch.core.types import Cursor
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.records import index_of, reading

ORDER = "order"
ORDER_VERSION = 1
_FILE, _PLACES = "order.json", "places"
_WORK = ".work-"
_COLUMNS = 6
_WIDTH = 8 * _COLUMNS
_MERGE_BYTES = 16 << 20  # of lines that wait, over all parts


class Place(NamedTuple):
    """Where a row is: in the input, and where its copy is (``spool`` a file's number, below 0: there is none)."""

    cursor: Cursor
    spool: int
    spot: int


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is there, of the first so many ``rows`` of the input, of which the ``last`` starts there.

    ``read`` is what was read for it, in blocks with their digests, in the order of the input; ``made_of`` tells one input and job
    from others; ``facts`` are for a person.
    """

    folder: Path
    rows: int
    last: Cursor
    read: Sequence[tuple[Bounds, str | None]]
    made_of: Mapping[str, Any]
    facts: Mapping[str, Any]

    def places(self, start: int, count: int) -> list[Place]:
        """So many rows from this place in the order on. Raises ``FolderError``."""
        path = self.folder / _PLACES
        with reading(path, "the order of the corpus"), path.open("rb", buffering=0) as stream:
            stream.seek(start * _WIDTH)
            data = stream.read(min(count, self.rows - start) * _WIDTH)
        rows, files, at, lines, spools, spots = (array("q", data)[column::_COLUMNS] for column in range(_COLUMNS))
        return list(map(Place, map(Cursor, rows, files, at, lines), spools, spots))

    def indexes(self, bounds: Bounds) -> list[int]:
        """The indexes of the rows that a window holds, ascending; of one behind the order they are its places."""
        start, stop = bounds.start.index, bounds.start.index + bounds.rows
        ordered = [place.cursor.index for place in self.places(start, stop - start)] if start < self.rows else []
        return sorted([*ordered, *range(max(start, self.rows), stop)])


def read_order(folder: Path) -> Order | None:
    """The order of a run folder; ``None`` where there is none, or none that came to its end. Raises ``FolderError``."""
    path = folder / ORDER / _FILE
    try:
        data = json.loads(path.read_bytes())
        if data["llmbatch_order"] > ORDER_VERSION:
            raise FolderError(f"{path}: written by a newer llmbatch; upgrade llmbatch to go on")
        read = [(bounds_from_dict(each), each["input_sha256"]) for each in data["read"]]
        order = Order(path.parent, int(data["rows"]), Cursor(*data["last"]), read, data["made_of"], data["facts"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: cannot be read as the order of a run: {error!r}; see llmbatch audit") from error
    size = (path.parent / _PLACES).stat().st_size if (path.parent / _PLACES).exists() else 0
    if size != order.rows * _WIDTH:
        raise FolderError(
            f"{path.parent / _PLACES}: has {size:,} bytes, and {order.rows:,} rows have {order.rows * _WIDTH:,}"
        )
    return order


def sound(order: Order) -> bool:
    """Whether the places are what was written; reads all of them."""
    with reading(order.folder / _PLACES, "the order of the corpus"), (order.folder / _PLACES).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == str(order.facts["sha256"])


class Making:
    """An order that is being made: a folder for what is needed on the way, which is gone at the end, however that comes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / ORDER
        self.scratch = self.folder / f"{_WORK}{name}"

    def __enter__(self) -> Making:
        discard_order(self.folder.parent)
        with writing(self.scratch):
            self.scratch.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        tidy_order(self.folder.parent)

    def commit(
        self,
        places: Iterable[bytes],
        read: Sequence[tuple[Bounds, str | None]],
        made_of: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> Order:
        """Write the order, with the copies of rows that lie in ``scratch``. Raises ``WriteError``."""
        rows, sha256, path = 0, hashlib.sha256(), self.folder / _PLACES
        with atomic(path) as file:
            for some in places:
                file.write(some)
                sha256.update(some)
                rows += len(some) // _WIDTH
        for copy in self.scratch.glob("rows-*"):
            with writing(self.folder / copy.name):
                copy.replace(self.folder / copy.name)
        point("order-placed")
        facts = {**facts, "sha256": sha256.hexdigest()}
        last = read[-1][0].last
        body = {
            "llmbatch_order": ORDER_VERSION,
            "rows": rows,
            "last": list(last),
            "read": [{**bounds_to_dict(bounds), "input_sha256": digest} for bounds, digest in read],
            "made_of": dict(made_of),
            "facts": facts,
        }
        atomic_write(self.folder / _FILE, json.dumps(body).encode() + b"\n")
        return Order(self.folder, rows, last, read, made_of, facts)


def tidy_order(folder: Path) -> None:
    """Remove what a pass needed on the way, also one that was killed."""
    for scratch in (folder / ORDER).glob(f"{_WORK}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def discard_order(folder: Path) -> None:
    """Remove the order of a run in which nothing was done yet, and what a pass that was killed left."""
    with writing(folder / ORDER):
        if (folder / ORDER).exists():
            (folder / ORDER / _FILE).unlink(missing_ok=True)  # first: without it there is no order
            shutil.rmtree(folder / ORDER)


def in_input_order(parts: Sequence[Path | Iterable[bytes]]) -> Iterator[bytes]:
    """The lines of parts, or lines, that are each in input order, as one. Raises ``FolderError``.

    Of each part a little is read at a time, and no file stays open, so any number of parts will do.
    """
    size = max(1 << 13, min(1 << 20, _MERGE_BYTES // max(1, len(parts))))
    return heapq.merge(*(_lines(part, size) if isinstance(part, Path) else part for part in parts), key=index_of)


def _lines(part: Path, size: int) -> Iterator[bytes]:
    offset, rest = 0, b""
    while True:
        with reading(part), part.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        offset += len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if not data:
            break
    if rest:
        raise FolderError(f"{part}: a sealed part ends in the middle of a line; see llmbatch audit")


__all__ = ["ORDER", "Making", "Order", "Place", "discard_order", "in_input_order", "read_order", "sound", "tidy_order"]
