"""A finished run, and what makes a line of a row, in; ``output.jsonl`` out, or of several input files one for each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from llmbatch.core.types import Row
from llmbatch.sinks.base import Finished, Pair
from llmbatch.sinks.by_file import output_names
from llmbatch.sinks.layouts.base import BUFFER

OUTPUT = "output.jsonl"


def write_by_input(finished: Finished, folder: Path, line: Callable[[dict[str, Any], Row], bytes]) -> list[Path]:
    """The files, in the order of the input's; one that has no row has none. ``line`` makes that of a row and its record."""
    files = finished.source().files()
    names = [OUTPUT] if len(files) == 1 else output_names(files, ".jsonl")
    written: list[Path] = []
    for number, pairs in groupby(finished.pairs(), key=_file):
        path = folder / names[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", BUFFER) as stream:
            stream.writelines(line(record, row) for record, row in pairs)
        written.append(path)
    return written


def _file(pair: Pair) -> int:
    return pair[1].cursor.file
