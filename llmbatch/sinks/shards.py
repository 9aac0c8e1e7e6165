"""A finished run in, shards of so many rows each out: ``results-00000-of-00012.jsonl`` and so on, or Parquet."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from llmbatch.sinks.base import Finished, Output
from llmbatch.sinks.pieces import remove_others, write_piece


def write_shards(finished: Finished, output: Output) -> list[Path]:
    """The lines of ``results.jsonl``, unchanged and in order; the last shard may have fewer. Records are counted first."""
    rows, suffix = output.settings.rows_per_shard, output.settings.shard_format
    count = -(-sum(1 for _ in finished.lines()) // rows)
    lines = finished.lines()
    written = []
    for number in range(count):
        path = output.folder / f"results-{number:05d}-of-{count:05d}.{suffix}"
        write_piece(islice(lines, rows), path)
        written.append(path)
    remove_others(output.folder.glob("results-[0-9]*-of-[0-9]*.*"), written)
    return written
