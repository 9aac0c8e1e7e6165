"""An input of several objects in; for each of them the name of a file of output, and what became of its rows, out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from llmbatch.core.types import Cursor
from llmbatch.formats.base import Answered
from llmbatch.sinks.base import Finished
from llmbatch.sinks.by_file import inside
from llmbatch.sinks.layouts.base import answered
from llmbatch.sources.base import Source

_SUFFIX = ".out"


def output_objects(source: Source, folder: str | None) -> list[str]:
    """KEY.out for each object, where KEY is its name below ``folder``, or below the folder that all of them share.

    None of them leads out of the folder that they are written to, whatever an object is called.
    """
    names = list(source.files())
    for number in range(len(names)):
        whole = source.locate(Cursor(0, number)).rpartition(":")[0]
        if folder and whole.startswith(folder):
            names[number] = whole.removeprefix(folder)
    return [f"{inside(name)}{_SUFFIX}" for name in names]


def by_object(finished: Finished, source: Source) -> Iterator[tuple[int, Iterator[Answered]]]:
    """(number, what became of its rows) of each object that has rows, and of those that have none because they are empty."""
    following = 0
    for number, rows in groupby(answered(finished), key=lambda each: each[0]):
        yield from ((empty, iter(())) for empty in range(following, number))
        following = number + 1
        yield number, (row for _, row in rows)
    yield from ((number, iter(())) for number in _empty(source) if number >= following)


def _empty(source: Source) -> list[int]:
    """Objects without a byte. Of more than a thousand an input does not say which those are."""
    entries, names = source.fingerprint(), source.files()
    return [number for number, entry in enumerate(entries) if len(entries) == len(names) and entry.get("size") == 0]
