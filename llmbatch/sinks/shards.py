"""A finished run in, shards of so many rows each out: ``results-00000-of-00012.jsonl`` and so on, or Parquet."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from llmbatch.core.files import atomic_write, writing
from llmbatch.sinks.base import Finished, Output
from llmbatch.sinks.parquet import write_table


def write_shards(finished: Finished, output: Output) -> list[Path]:
    """The lines of ``results.jsonl``, unchanged and in order; the last shard may have fewer. Records are counted first.

    Shards that are left of other settings, or of a shorter input, are removed.
    """
    rows, suffix = output.settings.rows_per_shard, output.settings.shard_format
    count = -(-sum(1 for _ in finished.lines()) // rows)
    lines = finished.lines()
    dimensions = finished.dimensions() if suffix == "parquet" else None
    written = []
    for number in range(count):
        path = output.folder / f"results-{number:05d}-of-{count:05d}.{suffix}"
        if suffix == "parquet":
            write_table(islice(lines, rows), path, dimensions)
        else:
            atomic_write(path, islice(lines, rows))
        written.append(path)
    for path in set(output.folder.glob("results-[0-9]*-of-[0-9]*.*")) - set(written):
        with writing(path):
            path.unlink(missing_ok=True)
    return written
