"""A finished run, and what makes a line of a row, in; ``output.jsonl`` out, or of several input files one for each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from llmbatch.formats.base import Answered
from llmbatch.sinks.base import Finished
from llmbatch.sinks.by_file import output_names
from llmbatch.sinks.layouts.base import answered

OUTPUT = "output.jsonl"


def write_by_input(finished: Finished, folder: Path, line: Callable[[Answered], bytes]) -> list[Path]:
    """The files, in the order of the input's; one that has no row has none."""
    files = finished.source().files()
    names = [OUTPUT] if len(files) == 1 else output_names(files, ".jsonl")
    written: list[Path] = []
    for number, rows in groupby(answered(finished), key=lambda pair: pair[0]):
        path = folder / names[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.writelines(line(row) for _, row in rows)
        written.append(path)
    return written
