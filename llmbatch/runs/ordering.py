"""A job, its run folder and its input in; the input in the order in which its rows are to be asked, out.

The order of a corpus is made before anything is asked, once for a run: it is found again in the folder whenever the run goes on. A
pass that was killed is begun anew.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmbatch.core import errors
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError, LlmbatchError, RunError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.faults import point
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.order import Making, Order, discard_order, read_order, tidy_order
from llmbatch.folder.ordered import Ordered
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.measure.order_gain import Looked, looked_at
from llmbatch.programs import PROGRAMS
from llmbatch.runs.order_pass import Pass, Seen, read_block
from llmbatch.sources.base import START, Mark, Source
from llmbatch.sources.reader import Reader

_BLOCK = 16_384  # rows that are read as one task
_WORTH_A_WORD = 0.05  # of the text of prompts can be spared at all
_FEWEST_FOR_A_WORD = 4_096  # rows
_FEWEST_FOR_PROCESSES = 50_000  # as long as their start takes, one process reads so many rows
_SPARE = 3  # times as much of the disk must be free as copies of the rows are expected to take


def in_order(
    job: Job,
    folder: RunFolder,
    source: Source,
    recipe: Recipe,
    identity: Mapping[str, str],
    tell: Watcher,
    *,
    paced: bool,
) -> Source:
    """The input as this run reads it: as it stands, or in the order of the corpus, which is made where there is none yet.

    ``paced``: something may end the run before its input. Raises ``UsageError``, ``ReadError`` and ``WriteError``.
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
    looked: Looked | None = None
    if job.run.order in ("auto", "corpus"):
        looked, said = _decide(job, recipe, source, folder.path, paced=paced)
        if said:
            tell(Note("info", f"order: {said}"))
    if looked is None:
        return source
    order = make_order(job, folder.path, source, recipe, made_of, looked.rows)
    tell(Note("info", f"order: {_told(order)}"))
    return Ordered(source, order)


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


def make_order(job: Job, folder: Path, source: Source, recipe: Recipe, made_of: Mapping[str, Any], about: int) -> Order:
    """Read all of the input, of ``about`` so many rows, and write its order into the run folder."""
    began = time.monotonic()
    seeker = source.seeks()
    with Making(folder, f"{os.getpid()}-{time.time_ns()}") as making:
        with_ = Pass(source, recipe, making.scratch, spool=seeker is None)
        # a program that is known in this process alone cannot be had in another
        alone = seeker is None or about < _FEWEST_FOR_PROCESSES or job.program.name not in PROGRAMS
        processes = 1 if alone else _cores()
        if seeker is None or alone:
            seen = list(_read_here(with_))
        else:
            with _Workers(job, folder, making.scratch, processes) as workers:
                seen = workers.read(seeker.marks(_BLOCK))
        read = time.monotonic()
        with _Workers(job, folder, making.scratch, 1) as workers:
            places = workers.sort(_cores())
        point("order-sorted")
        facts = {
            "spooled": with_.spool,
            "processes": processes,
            "read_seconds": round(read - began, 3),
            "sort_seconds": round(time.monotonic() - read, 3),
        }
        return making.commit(_chunks(places), [(each.bounds, each.digest) for each in seen], made_of, facts)


def _read_here(with_: Pass) -> Iterator[Seen]:
    reader = Reader(with_.source)
    reader.seek(START)
    number = 0
    while (seen := read_block(with_, reader, number, _BLOCK)) is not None:
        yield seen
        number += 1


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(6 * 8 * 4096):
            yield chunk


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Workers:
    """Processes that read blocks, or sort. They end with this one: when it is killed, nothing more comes to them."""

    def __init__(self, job: Job, folder: Path, scratch: Path, count: int) -> None:
        data = job.data()
        data["input"].pop("strict", None)  # that was seen already
        self._begin = {"job": data, "folder": str(folder.absolute()), "scratch": str(scratch.absolute())}
        self._scratch = scratch
        self._count = count
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[str]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Workers:
        self._stack.callback(self._end)
        log = self._stack.enter_context((self._scratch / "log").open("ab"))
        for _ in range(self._count):
            process = subprocess.Popen(
                [sys.executable, "-m", "llmbatch.runs.order_pass"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8", start_new_session=True,
            )  # fmt: skip
            self._all.append(process)
            self._send(process, self._begin)
            self._idle.put(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, marks: Iterator[Mark]) -> list[Seen]:
        """Every block, read by whoever is free. Raises what a process says that went wrong."""
        blocks = list(marks)
        stops: Sequence[Any] = [*(mark.start for mark in blocks[1:]), None]
        asked = [
            Bounds(n, mark.start, mark.start, stop, mark.rows)
            for n, (mark, stop) in enumerate(zip(blocks, stops, strict=True))
        ]
        with ThreadPoolExecutor(self._count) as threads:
            answers = list(threads.map(lambda bounds: self._ask(bounds_to_dict(bounds)), asked))
        return [Seen(bounds_from_dict(answer["seen"]), answer["digest"]) for answer in answers]

    def sort(self, threads: int) -> Path:
        """Sort what was read; returns the file of places, which lies in ``scratch``."""
        self._ask({"sort": threads})
        return self._scratch / "places"

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        process = self._idle.get()
        try:
            self._send(process, message)
            assert process.stdout is not None  # noqa: S101 - for the type checker
            line = process.stdout.readline()
            if not line:
                raise RunError(
                    f"order: a process that reads the input ended by itself ({process.wait()}): {self._complaint()}"
                )
        finally:
            self._idle.put(process)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"], RunError)
            raise kind(answer["message"]) if issubclass(kind, LlmbatchError) else RunError(answer["message"])
        return answer

    def _send(self, process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(BrokenPipeError):  # it has ended, and is asked for its answer in vain
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()

    def _complaint(self) -> str:
        lines = (self._scratch / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


__all__ = ["in_order", "make_order"]
