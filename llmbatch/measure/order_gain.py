"""A job, its recipe and its source in; what an order of all of its rows would save, told from its first rows, out."""

from __future__ import annotations

from typing import Any, NamedTuple

from llmbatch.core.types import Failure, Row
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.plan.corpus_order import NO_PROMPT, Gain, Key, foreseen, key_of, said
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source

_LARGEST_SAMPLE = 16_384  # rows
_FEWEST = 4_096  # rows of which auto thinks about an order at all
_FIRST = 256  # rows from which is told whether there is more than a window


class Looked(NamedTuple):
    """What was seen: about how many ``rows`` the input has, their text in bytes, and what an order of them all would save."""

    rows: int
    size: int
    gain: Gain

    def sentence(self) -> str:
        """For a person."""
        return (
            f"as a sample shows, of the text of prompts a prefix cache can spare about {self.gain.corpus:.0%} in one order of all "
            f"{self.rows:,} rows, and {self.gain.windows:.0%} in windows of the input"
        )

    def is_worth_it(self, job: Job) -> bool:
        """Whether an order of the corpus is what ``run.order=auto`` takes."""
        return self.rows >= _FEWEST and self.gain.saving >= job.plan.min_saving


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


def foreseen_of(job: Job) -> tuple[str, dict[str, Any]] | None:
    """What a job's order is expected to save, for a person and as plain data; ``None`` where there is not more than a window."""
    looked = (
        None if job.input.path == "-" or job.input.endless else looked_at(job, recipe_of(job), open_source(job.input))
    )
    if looked is None or looked.rows < _FEWEST:
        return None
    worth = looked.is_worth_it(job)
    takes = f"--order auto takes {'that order, for which the input is read once more ahead' if worth else 'windows'}"
    shares = {"in_windows": looked.gain.windows, "in_one_order": looked.gain.corpus}
    return f"Order: {looked.sentence()}; {takes}.", {
        **shares,
        "saving": looked.gain.saving,
        "auto": "corpus" if worth else "window",
    }


__all__ = ["Looked", "foreseen_of", "key_of_row", "looked_at"]
