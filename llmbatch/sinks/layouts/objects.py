"""An input of several objects in; for each of them the name of a file of output, and what became of its rows, out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from llmbatch.core.types import Cursor, Row
from llmbatch.sinks.base import Finished, Pair
from llmbatch.sinks.by_file import distinct, inside
from llmbatch.sources.base import Source

_SUFFIX = ".out"


def output_objects(source: Source, folder: str | None) -> list[str]:
    """KEY.out for each object, where KEY is its name below ``folder``, or below the folder that all of them share.

    None of them leads out of the folder that they are written to, whatever an object is called, and each is another file.
    """
    names = list(source.files())
    for number in range(len(names)):
        whole = source.locate(Cursor(0, number)).rpartition(":")[0]
        if folder and whole.startswith(folder):
            names[number] = whole.removeprefix(folder)
    return distinct([f"{inside(name)}{_SUFFIX}" for name in names])


def by_object(finished: Finished, source: Source) -> Iterator[tuple[int, Iterator[Pair]]]:
    """(number, its rows with their records) of each object that has rows, and of those that the run passed as they have none."""
    last: Row | None = None

    def pairs() -> Iterator[Pair]:
        nonlocal last
        for pair in finished.pairs():
            last = pair[1]
            yield pair

    following = 0
    for number, rows in groupby(pairs(), key=lambda pair: pair[1].cursor.file):
        yield from ((empty, iter(())) for empty in range(following, number))
        following = number + 1
        yield number, rows
    yield from ((empty, iter(())) for empty in range(following, _end(finished, source, last)))


def _end(finished: Finished, source: Source, last: Row | None) -> int:
    """The number of the object with the first row that was not run; that behind the last object where all rows were."""
    if finished.limited:
        return 0 if last is None else last.cursor.file + 1
    rows = source.places() if last is None else source.places(last.cursor)
    left = (row.cursor.file for row in rows if last is None or row.index > last.index)
    return next(left, len(source.files()))
