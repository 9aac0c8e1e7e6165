"""A job with a sweep in; how many rows it makes, and whether that is more than goes without a yes, out: before any is run."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from llmbatch.core.words import count
from llmbatch.folder.folder import read_manifest
from llmbatch.job.job import Job
from llmbatch.job.sweep import SweepSettings
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source


class SweepSize(NamedTuple):
    """``said`` is how many rows there are, as a sentence; ``too_large`` says which limit that is beyond, if it is."""

    said: str
    too_large: str | None


def sweep_size(job: Job, sweep: SweepSettings) -> SweepSize:
    """Count the rows, up to the limit. A run that has begun was agreed to then. Raises ``SourceError`` and ``ReadError``."""
    settings, limit = sweep.count, sweep.max_rows
    begun = read_manifest(job.output) is not None
    over = f"{count(settings)} settings are more than sweep.max_settings ({count(sweep.max_settings)})"
    too_large = over if settings > sweep.max_settings and not begun else None
    if job.input.path == "-" or job.input.endless:
        return SweepSize(f"a sweep of {count(settings)} settings: every row is run under each of them", too_large)
    source = open_source(job.input)
    rows = sum(1 for _ in islice(source.rows(), limit + 1))
    if rows > limit:
        said = _estimate(source, limit) or f"more than {count(limit)} rows"
        if not begun and too_large is None:
            too_large = f"that is more than sweep.max_rows ({count(limit)})"
    else:
        said = f"{count(rows)} rows"
    return SweepSize(
        f"a sweep of {count(settings)} settings, under each of which every row of the input is run: {said}", too_large
    )


def _estimate(source: Source, rows: int) -> str | None:
    """How many rows there are, from the place in the input of the row with this index; ``None`` where that does not tell."""
    row = next(islice(source.rows(), rows, None), None)
    share = source.progress(row.cursor) if row is not None else None
    return f"about {count(float(f'{rows / share:.2g}'))} rows" if share else None


__all__ = ["SweepSize", "sweep_size"]
