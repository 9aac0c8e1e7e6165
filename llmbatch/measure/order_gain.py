"""A job, its recipe and its source in; what an order of all of its rows would save, told from some of them, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from llmbatch.core.types import Failure, Row
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.plan.corpus_order import NO_PROMPT, Gain, Key, foreseen, key_of, said
from llmbatch.prompt.field_order import lines_of_their_own
from llmbatch.prompt.library import load_file
from llmbatch.sources.base import Scattered, Source
from llmbatch.sources.opening import open_source

_LARGEST_SAMPLE = 16_384  # rows
_STRETCHES = 8  # of the input that are looked at, where that can be
_SHORTEST = 64  # rows of one
_FEWEST = 4_096  # rows of which auto thinks about an order at all
_MOST_FIELDS, _FIELDS_SAMPLE = 6, 4_096  # fields that are tried in other orders, and rows of which that is told
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
    """Look at a window of rows: stretches from all over the input where it can be entered anywhere, else its first rows.

    ``None`` where there is not more than a window. Where the number of rows cannot be told, it is taken to be what was seen.
    """
    most = min(job.run.window, _LARGEST_SAMPLE)
    seeker = source.seeks() if job.input.limit is None else None
    if isinstance(seeker, Scattered) and most >= _STRETCHES * _SHORTEST:
        count, stretches = _STRETCHES, seeker.stretches(_STRETCHES, most // _STRETCHES)
    else:
        count, stretches = 1, iter([islice(source.rows(), most)])
    found: list[_Stretch] = []
    for rows in stretches:
        stretch = _Stretch([], None, None)
        for row in rows:
            stretch.add(row, key_of_row(recipe, row))
            if len(stretch.keys) == _FIRST and not found and not _windows(job, source, row, stretch.size):
                return None
            if stretch.size >= job.run.window_characters // count:
                stretch.cut = True
                break
        stretch.cut = stretch.cut or len(stretch.keys) == most // count
        found.append(stretch)
    seen, size = sum(len(stretch.keys) for stretch in found), sum(stretch.size for stretch in found)
    if not any(stretch.cut for stretch in found):
        return None  # all of it was seen, and is in one window
    rows_ = max(seen, _rows_by(source, found) or seen)
    gain = foreseen([stretch.keys for stretch in found], rows_, job.run.window)
    return Looked(rows_, round(size * rows_ / seen), gain)


@dataclass(slots=True)
class _Stretch:
    """Neighbours in the input. ``cut``: there are more behind them that are not looked at."""

    keys: list[Key]
    first: Row | None
    last: Row | None
    size: int = 0
    cut: bool = False

    def add(self, row: Row, key: Key) -> None:
        self.first, self.last = self.first or row, row
        self.keys.append(key)
        self.size += key.size


def _rows_by(source: Source, stretches: Sequence[_Stretch]) -> int | None:
    """About how many rows there are, by the share of the input that the stretches take."""
    rows, share = 0, 0.0
    for stretch in stretches:
        if stretch.first is None or stretch.last is None or stretch.first is stretch.last:
            continue
        begin, end = source.progress(stretch.first.cursor), source.progress(stretch.last.cursor)
        if begin is None or end is None:
            return None
        rows, share = rows + len(stretch.keys) - 1, share + end - begin
    return round(rows / share) if share > 0 else None


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


def fields_first(job: Job) -> tuple[str, dict[str, Any]] | None:
    """Which order of the prompt's fields a prefix cache gains most by, told from the first rows; ``None`` where none is better.

    One field after another is put next, whichever spares most. For a person, and as plain data.
    """
    if job.prompt is None or job.input.path == "-" or job.sweep is not None:
        return None
    names = tuple(dict.fromkeys(lines_of_their_own(load_file(job.prompt.path).file)))
    if not 2 <= len(names) <= _MOST_FIELDS:
        return None
    source = open_source(job.input)
    rows = list(islice(source.rows(), _FIELDS_SAMPLE))
    count = (_rows(source, rows[-1]) if rows else None) or len(rows)

    def spared(order: Sequence[str]) -> float:
        prompt = job.prompt and job.prompt.model_copy(update={"field_order": tuple(order)})
        recipe = recipe_of(job.model_copy(update={"prompt": prompt}))
        return foreseen([[key_of_row(recipe, row) for row in rows]], count, len(rows)).corpus

    now, best = spared(job.prompt.field_order), list[str]()
    while len(best) < len(names) - 1:
        rest = [name for name in names if name not in best]
        best.append(max(rest, key=lambda name: spared([*best, name, *(other for other in rest if other != name)])))
    best += [name for name in names if name not in best]
    then = spared(best)
    if then >= 1.0 or 1.0 - (1.0 - then) / (1.0 - now) < job.plan.min_saving:
        return None
    said = (
        f"Fields: with --set prompt.field_order=[{','.join(best)}], which changes the prompt, a prefix cache can spare about "
        f"{then:.0%} of the text of prompts instead of {now:.0%}."
    )
    return said, {"field_order": best, "spared": then, "spared_now": now}


__all__ = ["Looked", "fields_first", "foreseen_of", "key_of_row", "looked_at"]
