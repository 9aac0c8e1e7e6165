"""An input of several objects in; for each of them the name of a file of output, and what became of its rows, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from llmbatch.core.types import Cursor
from llmbatch.formats.base import Answered, Asked
from llmbatch.sinks.base import Finished
from llmbatch.sinks.by_file import inside
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


def by_object(
    finished: Finished, has_samples: Callable[[Mapping[str, Any]], bool]
) -> Iterator[tuple[int, Iterator[Answered]]]:
    """(number, what became of its rows) of each object that has rows, and of those without any between them.

    ``has_samples`` says of a row's data whether it may ask for several answers: of others it is known how they were asked, and
    nothing is rendered once more for that.
    """
    asked, model, created = Asked(), finished.model, finished.created
    following = 0
    for number, pairs in groupby(finished.pairs(), key=lambda pair: pair.row.cursor.file):
        yield from ((empty, iter(())) for empty in range(following, number))
        following = number + 1
        yield (
            number,
            (
                Answered(
                    record,
                    row.data,
                    finished.asked(row) if has_samples(row.data) else asked,
                    model,
                    created,
                    row.cursor.line,
                )
                for record, row in pairs
            ),
        )
