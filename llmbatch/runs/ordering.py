"""A job, its run folder and its input in; the input in the order in which its rows are to be asked, out.

Whether all of a corpus is worth an order is decided before anything is asked, once for a run. The order itself is made when the
first row is asked for, while the engine starts; it is found again in the folder whenever the run goes on. A pass that was killed is
begun anew.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.events import Note, Watcher
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.supervised import Cancelled
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.order import Order, discard_order, read_order, tidy_order
from llmbatch.folder.ordered import Coming, Ordered
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.measure.order_gain import Looked, looked_at
from llmbatch.runs.order_making import make_order
from llmbatch.sources.base import Source

_WORTH_A_WORD = 0.05  # of the text of prompts can be spared at all
_FEWEST_FOR_A_WORD = 4_096  # rows
_SPARE = 3  # times as much of the disk must be free as copies of the rows are expected to take
_BYTES_A_TOKEN = 3  # of a prompt, at least about: with so many tokens it surely fits

Info = Callable[[], EngineInfo | None]
"""What the engine is, once one has been up."""


def in_order(
    job: Job,
    folder: RunFolder,
    source: Source,
    recipe: Recipe,
    identity: Mapping[str, str],
    tell: Watcher,
    info: Info,
    *,
    paced: bool,
) -> Source:
    """The input as this run reads it: as it stands, or in the order of the corpus, which is to be made where there is none yet.

    ``paced``: something may end the run before its input. Raises ``UsageError`` and ``ReadError``.
    """
    order = read_order(folder.path)
    tidy_order(folder.path)
    if folder.begun:
        if order is None and job.run.order == "corpus":
            tell(Note("info", "order: this run was begun in windows of the input, and goes on so"))
        return source if order is None else Ordered(source, order)
    made_of = {"job": short_digest(json.dumps(dict(identity), sort_keys=True)), "input": source.fingerprint()}
    if order is not None and order.made_of == made_of and job.run.order in ("auto", "corpus"):
        return Ordered(source, order)
    discard_order(folder.path)
    if job.run.order not in ("auto", "corpus"):
        return source
    looked, said = _decide(job, recipe, source, folder.path, paced=paced)
    if said:
        tell(Note("info", f"order: {said}"))
    if looked is None or not looked.size:
        return source

    def make(given_up: Callable[[], bool]) -> Order | None:
        def go_on() -> None:
            if given_up():
                raise Cancelled
            if job.run.order == "auto" and _all_fits(looked, info()):
                raise _Needless

        try:
            go_on()
            order = make_order(job, folder.path, source, recipe, made_of, looked.rows, go_on)
        except _Needless:
            discard_order(folder.path)
            tell(Note("info", "order: none is needed, as the KV cache holds all of the prompts at once"))
            return None
        tell(Note("info", f"order: {_told(order)}"))
        return order

    return Coming(source, make)


class _Needless(Exception):
    """No order is needed after all."""


def _all_fits(looked: Looked, info: EngineInfo | None) -> bool:
    """Whether the cache of one engine holds all prompts, so that it spares what they share in any order."""
    return info is not None and looked.size / _BYTES_A_TOKEN < (info.kv_cache_tokens or 0)


def _decide(job: Job, recipe: Recipe, source: Source, folder: Path, *, paced: bool) -> tuple[Looked | None, str]:
    """What is known of a corpus that is to be ordered, or ``None``; and what a person should know of that, in words."""
    asked_for = job.run.order == "corpus"
    if why := _why_not(job, paced=paced):
        return None, f"rows are asked in windows of the input: {why}" if asked_for else ""
    looked = looked_at(job, recipe, source)
    if looked is None:
        return None, ""
    said = looked.sentence()
    if not asked_for and not looked.is_worth_it(job):
        worth_a_word = looked.gain.corpus > _WORTH_A_WORD and looked.rows >= _FEWEST_FOR_A_WORD
        return None, f"{said}: rows are asked in windows" if worth_a_word else ""
    if importlib.util.find_spec("duckdb") is None:
        if asked_for:
            raise JobError(
                "run.order=corpus needs duckdb, which is not installed: pip install duckdb, or take run.order=window"
            )
        return None, f"{said}, but duckdb, which sorts them, is not installed: pip install duckdb"
    if source.seeks() is not None:
        return looked, f"{said}: the input is read once before anything is asked"
    free = shutil.disk_usage(folder).free
    if not asked_for and free < _SPARE * looked.size:
        return None, (
            f"{said}, but the input cannot be entered at any row, and for copies of the rows the disk of {folder} has too little "
            f"room ({free >> 20:,} MiB): rows are asked in windows"
        )
    return looked, f"{said}; as the input cannot be entered at any row, its rows are copied into {folder}"


def _why_not(job: Job, *, paced: bool) -> str:
    if job.input.shard is not None:
        return "of a slice (input.shard)"
    if job.run.rows is not None:
        return "only some of the rows are run (run.rows)"
    if paced or (job.accept is not None and job.accept.rows is not None):
        return "the run may end before its input, by what came until then"
    if job.input.endless:
        return "the input has no end"
    return ""


def _told(order: Order) -> str:
    facts = order.facts
    copied = ", and copied" if facts["spooled"] else ""
    return (
        f"{order.rows:,} rows were read{copied} by {facts['processes']} process{'es'[: 2 * (facts['processes'] > 1)]} in "
        f"{facts['read_seconds']:.1f} s, and sorted by what their prompts begin with in {facts['sort_seconds']:.1f} s"
    )


__all__ = ["in_order"]
