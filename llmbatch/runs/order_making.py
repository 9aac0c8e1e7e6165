"""A job, its run folder and its input in; the order of the corpus, written into the folder, out.

All cores read: this process, and as many others as the rows are worth. What sorts them is started first, and loads meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from llmbatch.core.faults import point
from llmbatch.core.machine import processors
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.order import Making, Order
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.plan.sorting import Sorting
from llmbatch.programs import PROGRAMS
from llmbatch.runs.asked_process import AskedProcess
from llmbatch.runs.order_pass import Pass, Seen, read_all, read_block
from llmbatch.sources.base import Mark, Seeker, Source

_BLOCK = 16_384  # rows that are read as one task
_WORTH_A_PROCESS = 60_000  # rows: about what is read in the time that a process takes to start
_MOST_PROCESSES = 16
_LOOK_SECONDS = 0.2

GoOn = Callable[[], None]
"""Called now and then; raises where nobody waits for the order any more."""


def make_order(
    job: Job,
    folder: Path,
    source: Source,
    recipe: Recipe,
    made_of: Mapping[str, Any],
    about: int,
    go_on: GoOn = lambda: None,
) -> Order:
    """Read all of the input, of ``about`` so many rows, and write its order into the run folder."""
    began = time.monotonic()
    seeker = source.seeks()
    with Making(folder, f"{os.getpid()}-{time.time_ns()}") as making, ExitStack() as stack:
        log = making.scratch / "log"
        threads = stack.enter_context(ThreadPoolExecutor(_MOST_PROCESSES))
        sorter = stack.enter_context(AskedProcess("llmbatch.plan.sorting", log))
        with_ = Pass(source, recipe, making.scratch, spool=seeker is None)
        # a program that is known in this process alone cannot be had in another
        known = seeker is not None and job.program.name in PROGRAMS
        helpers = min(len(processors()), _MOST_PROCESSES, 1 + about // _WORTH_A_PROCESS) - 1 if known else 0
        if seeker is None or not helpers:
            blocks = _read_here(with_, go_on)
        else:
            data = job.data()
            data["input"].pop("strict", None)  # that was seen already
            begin = {"job": data, "folder": str(folder.absolute()), "scratch": str(making.scratch.absolute())}
            with ExitStack() as reading:  # they end before the sort, which needs memory of its own
                processes = [
                    reading.enter_context(AskedProcess("llmbatch.runs.order_pass", log, begin)) for _ in range(helpers)
                ]
                blocks = _read_together(with_, seeker, processes, threads, go_on)
        read = time.monotonic()
        places = making.scratch / "places"
        asked = Sorting(str(making.scratch / "keys-*.parquet"), str(places), str(making.scratch), len(processors()))
        _wait([threads.submit(sorter.ask, asked._asdict())], go_on)
        point("order-sorted")
        facts = {
            "spooled": with_.spool,
            "processes": helpers + 1,
            "read_seconds": round(read - began, 3),
            "sort_seconds": round(time.monotonic() - read, 3),
        }
        return making.commit(_chunks(places), [(each.bounds, each.digest) for each in blocks], made_of, facts)


def _read_here(with_: Pass, go_on: GoOn) -> list[Seen]:
    blocks = []
    for block in read_all(with_, _BLOCK):
        blocks.append(block)
        go_on()
    return blocks


def _read_together(
    with_: Pass, seeker: Seeker, processes: list[AskedProcess], threads: ThreadPoolExecutor, go_on: GoOn
) -> list[Seen]:
    """Every block, read by whoever is free, this process among them. Raises what went wrong in any of them."""
    tasks, blocks = _Tasks(seeker.marks(_BLOCK)), list[Seen]()

    def ask(process: AskedProcess) -> None:
        for task in tasks:
            answer = process.ask(bounds_to_dict(task))
            blocks.append(Seen(bounds_from_dict(answer["seen"]), answer["digest"]))

    asking = [threads.submit(ask, process) for process in processes]
    for task in tasks:
        blocks.append(read_block(with_, task))
        go_on()
        _wait([each for each in asking if each.done()], go_on)
    _wait(asking, go_on)
    return sorted(blocks, key=lambda block: block.bounds.window)


class _Tasks:
    """Blocks that are still to be read, for whoever asks next, in any thread. What is found first is given out first."""

    def __init__(self, marks: Iterator[Mark]) -> None:
        self._lock = threading.Lock()
        self._tasks = self._of(marks)

    def __iter__(self) -> _Tasks:
        return self

    def __next__(self) -> Bounds:
        with self._lock:
            return next(self._tasks)

    @staticmethod
    def _of(marks: Iterator[Mark]) -> Iterator[Bounds]:
        for number, (mark, behind) in enumerate(pairwise(chain(marks, [None]))):
            assert mark is not None  # noqa: S101 - for the type checker
            stop = None if behind is None else behind.start
            yield Bounds(number, mark.start, mark.start, stop, mark.rows)


def _wait(futures: list[Future[Any]], go_on: GoOn) -> None:
    """Until they are done; raises what any of them raises."""
    left = set(futures)
    while left:
        done, left = wait(left, timeout=_LOOK_SECONDS)
        for each in done:
            each.result()
        go_on()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(6 * 8 * 4096):
            yield chunk


__all__ = ["GoOn", "make_order"]
