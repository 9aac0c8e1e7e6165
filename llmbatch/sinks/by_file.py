"""A finished run in; for each file of its input that has rows, one with their records out: ``results/NAME.jsonl``, or Parquet.

NAME is that of the input file below the folder that all of them share, folders included, without the suffix of its format.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

from llmbatch.core.files import atomic_folder
from llmbatch.sinks.base import Finished, Output
from llmbatch.sinks.parquet import fill_table

_FORMAT = re.compile(r"(\.(jsonl|ndjson|json|csv|tsv|parquet|pq))?(\.(gz|zst|bz2|xz))?\Z", re.IGNORECASE)
_LONGEST = 240  # bytes of a name; file systems take 255, and a suffix comes to it


def write_by_file(finished: Finished, output: Output) -> list[Path]:
    """The lines of ``results.jsonl``, unchanged, each in the file of its row, for which the input is read once more.

    The folder ``results`` is made anew: what an earlier session wrote into it is gone.
    """
    suffix, source = f".{output.settings.shard_format}", finished.source()
    names = output_names(source.files(), suffix)
    dimensions = finished.dimensions() if suffix == ".parquet" else None
    written: list[str] = []
    with atomic_folder(output.folder / "results") as folder:
        for number, placed in groupby(finished.placed(source), key=lambda pair: pair[1].file):
            path = folder / names[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (line for line, _ in placed)
            with path.open("xb") as stream:  # of two files with one name none is lost in silence
                if suffix == ".parquet":
                    fill_table(lines, stream, dimensions)
                else:
                    stream.writelines(lines)
            written.append(names[number])
    return [output.folder / "results" / name for name in written]


def output_names(files: Sequence[str], suffix: str) -> list[str]:
    """What the records of each of these files are written to: each another file, and none outside of the folder."""
    plain = [inside(_FORMAT.sub("", file, count=1)) for file in files]
    names = [f"{name}{suffix}" for name in plain]
    taken = Counter(names)
    taken.update({str(folder) for name in plain for folder in PurePosixPath(name).parents})
    # a.jsonl and a.jsonl.gz, say, keep their suffixes
    names = [f"{inside(file)}{suffix}" if taken[name] > 1 else name for file, name in zip(files, names, strict=True)]
    return distinct(names)


def distinct(names: Sequence[str]) -> list[str]:
    """The names of files, with a number before those that another has too, or that are a folder of another's."""
    taken = Counter(names)
    taken.update({str(folder) for name in names for folder in PurePosixPath(name).parents})
    return [
        str(PurePosixPath(name).with_name(f"{number}-{PurePosixPath(name).name}")) if taken[name] > 1 else name
        for number, name in enumerate(names)
    ]


def inside(name: str) -> str:
    """A name that stays below its folder, whatever an object store calls its objects, and that a file system takes."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else _clipped(part) for part in parts) or "_"


def _clipped(part: str) -> str:
    raw = os.fsencode(part)
    if len(raw) <= _LONGEST:
        return part
    return f"{raw[: _LONGEST - 9].decode('utf-8', 'ignore')}-{hashlib.sha256(raw).hexdigest()[:8]}"
