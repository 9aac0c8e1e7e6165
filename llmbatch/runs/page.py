"""A run folder and its report in, its ``report.html`` out: a page of counts, plots and records, with the prompts of these."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llmbatch.core.errors import LlmbatchError, WriteError
from llmbatch.core.files import atomic_write
from llmbatch.core.types import Failure, Prompt, Row
from llmbatch.folder.folder import PAGE, RunFolder
from llmbatch.folder.input import kept_input
from llmbatch.folder.ordered import entries
from llmbatch.folder.sample import sample_of
from llmbatch.folder.timeline import read_timeline
from llmbatch.job.job import Job, job_of
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.report.page.over_time import Cost
from llmbatch.report.page.plots import Dots
from llmbatch.report.page.run import run_page
from llmbatch.report.page.sample import Sample, prompt_of
from llmbatch.report.report import Report
from llmbatch.sources.base import START, Counting, Source
from llmbatch.sources.opening import open_source
from llmbatch.sources.places import is_url

_ROWS = 200_000  # of the input that are read to find those that are shown
_SECONDS = 5.0  # and so long
_SEVERAL = 3  # further prompts of a row
_BYTES = 1_500_000  # that all prompts together may take


def page_beside(folder: Path, report: Report, job: Job) -> None:
    """Write the page of a run that ends, where its job wants one. A note in the report says so where it could not be made.

    Raises ``WriteError``. Nothing else: a page is to be looked at, and no run that did its work breaks for it.
    """
    if not job.run.page:
        return
    try:
        write_page(folder, report, job)
    except WriteError:
        raise
    except Exception as error:
        why = f"{PAGE} could not be made: {error!r}; llmbatch report {folder} --debug says more"
        report["notes"].append({"level": "warning", "message": why})


def write_page(
    folder: Path,
    report: Report,
    job: Job | None = None,
    scores: Sequence[Dots] = (),
    to: Path | None = None,
    headline: str = "",
) -> Path:
    """Write the page of a run, into its folder unless ``to`` says where; returns where it is.

    ``job`` is by default the one in the folder; where that cannot be read any more, the page has no prompts. ``headline`` is given
    where it is not the report's. Raises ``FolderError`` and ``WriteError``.
    """
    sample = sample_of(folder, report)
    job = job or _job_in(folder)
    if job is not None:
        _add_prompts(sample, folder, job)
    else:
        sample.prompts = "The prompts are not shown, as the job cannot be read any more."
    path = to or folder / PAGE
    atomic_write(path, run_page(report, sample, read_timeline(folder), scores, headline, _cost(report, job)))
    return path


def _job_in(folder: Path) -> Job | None:
    try:
        return job_of(folder)
    except LlmbatchError:  # the page says that it has no prompts
        return None


def _cost(report: Report, job: Job | None) -> Cost | None:
    if job is None or (total := report.get("cost")) is None:
        return None
    return Cost(total, job.run.price_per_million, job.run.price_per_gpu_hour is not None)


def _add_prompts(sample: Sample, folder: Path, job: Job) -> None:
    """Give the records their prompts, as far as they can be made again; ``sample.prompts`` says where they cannot."""
    if not sample.records:
        return
    if is_url(job.input.path):
        sample.prompts = "The prompts are not shown, as the input is not on this machine; llmbatch show fetches it."
        return
    by_index = {record["index"]: record for record in sample.records}
    try:
        recipe, source, room = recipe_of(job), open_source(kept_input(job.input, folder)), _BYTES
        for row in _rows_at(source, RunFolder(folder), by_index):
            prompt = _prompt(recipe, row)
            room -= len(json.dumps(prompt))
            if room < 0:
                break
            record = by_index.pop(row.index)
            place = source.locate(row.cursor)
            record["place"] = place.rpartition("/")[2] or place
            if prompt is not None:
                record["prompt"] = prompt
    except LlmbatchError as error:
        sample.prompts = f"Prompts are not shown: {error}"
        return
    if by_index:
        sample.prompts = f"The prompts of {len(by_index):,} of these rows are not in this file; llmbatch show has them."


def _rows_at(source: Source, run: RunFolder, wanted: Iterable[int]) -> Iterator[Row]:
    """The rows with these indexes, as far as they are found soon enough; each block is read from its start once."""
    end, left = time.monotonic() + _SECONDS, _ROWS
    bounds = [(each.start, each.last.index) for each in entries(run)] or [(START, 1 << 62)]
    needed = sorted(wanted)
    windows = [(start, [index for index in needed if start.index <= index <= last]) for start, last in bounds]
    # the windows first in which the fewest rows must be read for each that is found
    windows = [(start, found) for start, found in windows if found]
    windows.sort(key=lambda window: (window[1][-1] - window[0].index) / len(window[1]))
    seeker = source.seeks()
    for start, indexes in windows:
        if isinstance(seeker, Counting):
            yield from seeker.picked(start, indexes)
            left -= indexes[-1] - start.index
            if left <= 0 or time.monotonic() > end:
                return
            continue
        there, last = set(indexes), indexes[-1]
        for row in source.rows(start):
            left -= 1
            if row.index in there:
                yield row
            if row.index >= last:
                break
            if left <= 0 or time.monotonic() > end:
                return


def _prompt(recipe: Recipe, row: Row) -> list[dict[str, str]] | None:
    if row.failure is not None:
        return None
    rendered = recipe.render(row)
    if isinstance(rendered, Failure):
        return None
    several = (rendered.prompt, *rendered.more[:_SEVERAL])
    found = [prompt_of(each.messages, _text(each), each.prefill) for each in several]
    return [message for prompt in found for message in prompt]


def _text(prompt: Prompt) -> str | None:
    if prompt.ids is not None:
        return f"{len(prompt.ids):,} token ids"
    return prompt.text if prompt.pair is None else f"{prompt.text}\n\n{prompt.pair}"


__all__ = ["page_beside", "write_page"]
