"""A job, its recipe and its source in; what an order of all of its rows would save, told from its first rows, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch.core.types import Failure, Row
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.plan.corpus_order import NO_PROMPT, Gain, Key, foreseen, key_of, said
from llmbatch.sources.base import Source

_LARGEST_SAMPLE = 16_384  # rows
_FIRST = 256  # rows from which is told whether there is more than a window


class Looked(NamedTuple):
    """What was seen: about how many ``rows`` the input has, their text in bytes, and what an order of them all would save."""

    rows: int
    size: int
    gain: Gain


def looked_at(job: Job, recipe: Recipe, source: Source) -> Looked | None:
    """Look at a window of the first rows; ``None`` where there is not more than one. Where the number of rows cannot be told, it
    is taken to be what was seen."""
    most = min(job.run.window, _LARGEST_SAMPLE)
    keys: list[Key] = []
    size = 0
    last: Row | None = None
    for row in source.rows():
        if len(keys) == most or size >= job.run.window_characters:
            break
        last = row
        key = key_of_row(recipe, row)
        keys.append(key)
        size += key.size
        if len(keys) == _FIRST and not _windows(job, source, row, size):
            return None
    else:
        return None  # all of it is in one window
    if last is None:
        return None
    rows = _rows(source, last) or last.index + 1
    return Looked(rows, round(size * rows / len(keys)), foreseen(keys, rows))


def key_of_row(recipe: Recipe, row: Row) -> Key:
    """What a row is ordered by: its first prompt."""
    rendered = recipe.render(row) if row.failure is None else row.failure
    if isinstance(rendered, Failure):
        return NO_PROMPT
    most = rendered.sampling.get("max_tokens") if rendered.sampling else None
    return key_of(said(rendered.prompt), rendered.lora, most if isinstance(most, int) else 0)


def _rows(source: Source, last: Row) -> int | None:
    share = source.progress(last.cursor)
    return max(last.index + 1, round(last.index / share)) if share else None


def _windows(job: Job, source: Source, last: Row, size: int) -> bool:
    """Whether there seems to be more than a window, or it cannot be told."""
    rows = _rows(source, last)
    if rows is None:
        return True
    return rows > 0.9 * job.run.window or size * rows / (last.index + 1) > 0.9 * job.run.window_characters


def told(looked: Looked) -> Mapping[str, Any]:
    """As plain data."""
    return {
        "rows": looked.rows,
        "shares": {"windows": looked.gain.windows, "corpus": looked.gain.corpus},
        "saving": looked.gain.saving,
    }


__all__ = ["Looked", "key_of_row", "looked_at", "told"]
