"""Blocks of rows and outcomes in; planned windows, and what came of the outcomes, out: the process that ``row_workers`` starts.

Two threads work, as in a run that has no row workers: one makes windows of blocks, this one gives outcomes to the works of rows.
When the run is gone, however it went, so is this process.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from llmbatch import __version__
from llmbatch.core.errors import JobError, LlmbatchError
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Cursor, Outcome, Request
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.messages import ask
from llmbatch.folder.input import kept_input
from llmbatch.folder.journal import outcome_entry
from llmbatch.job.job import job_from
from llmbatch.job.prepare import Preparer, Room
from llmbatch.job.recipe import engine_of
from llmbatch.job.swept import recipe_of
from llmbatch.runs.filling import Filling
from llmbatch.runs.process import calm_collector
from llmbatch.runs.row_messages import (
    Begin,
    Block,
    Broken,
    Need,
    Outcomes,
    Ready,
    Rows,
    Settled,
    WindowKey,
    filled,
    outcomes_in,
    reuse_of,
    rows_of,
)
from llmbatch.runs.window import OpenWindow, written
from llmbatch.sources.base import Source
from llmbatch.sources.opening import open_source


class _Wire:
    """The pipe to the run, for several threads."""

    def __init__(self, pipe: Connection, log: str) -> None:
        """``log`` is where this process writes what nobody foresaw."""
        self._pipe = pipe
        self._log = log
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError:
            os._exit(0)  # the run is gone

    def receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            os._exit(0)

    def broken(self, error: BaseException, *, begun: bool = True) -> NoReturn:
        """Say what went wrong, and end."""
        known = isinstance(error, LlmbatchError)
        if not known:
            traceback.print_exception(error)
        said = (
            str(error)
            if known
            else f"a row worker failed with {error!r}: this is a bug of llmbatch, please report it with {self._log}"
        )
        self.send(Broken(type(error).__name__ if known else "RunError", said, begun))
        os._exit(1)


class _Engine:
    """What is known here of the run's engine: implements ``Readiness``."""

    def __init__(self, wire: _Wire) -> None:
        self.info: EngineInfo | None = None
        self._wire = wire
        self._needed = False
        self._ready = threading.Event()

    def need(self) -> None:
        if not self._needed:
            self._needed = True
            self._wire.send(Need())

    def wait_ready(self) -> EngineInfo:
        self.need()
        self._ready.wait()
        assert self.info is not None  # noqa: S101 - for the type checker
        return self.info

    def is_up(self, info: EngineInfo) -> None:
        self.info = info
        self._ready.set()


class _Windows:
    """The windows of this process, from their plans to their last records."""

    def __init__(self, wire: _Wire, filling: Filling, room: Room, source: Callable[[], Source]) -> None:
        """``source`` opens the job's input."""
        self._wire = wire
        self._filling = filling
        self._room = room
        self._source = source
        self._window_of: dict[
            int, tuple[WindowKey, OpenWindow]
        ] = {}  # row index -> its window, of rows that are not finished

    def fill(self, block: Block) -> None:
        """Make windows of a block, one after another. A window that was told may get outcomes at once."""
        opened = iter(self._filling.windows(rows_of(block, self._source), _stop_of(block), self._room))
        following, part = next(opened, None), 0
        while (now := following) is not None:
            following = next(opened, None)
            self._filling.plan(now)
            window, key = now.window, (block.number, part)
            for index in window.works:
                self._window_of[index] = key, window
            message = filled(key, window, last=following is None)
            window.requests, window.lines, window.entries = [], {}, []
            window.digests, window.groups, window.ledger = [], {}, Ledger()
            self._wire.send(message)
            part += 1

    def settle(self, message: Outcomes, context_length: int | None) -> Settled:
        """Give outcomes to the works of their rows, and say what came of them."""
        came: dict[WindowKey, Rows] = {}
        accounts: dict[WindowKey, Ledger] = {}
        following: list[Request] = []

        def feed(outcome: Outcome) -> None:
            index = outcome.key.index
            key, window = self._window_of[index]
            if key not in came:
                accounts[key] = Ledger()
                came[key] = Rows(key, [], [], {})
            work = window.works[index]
            following.extend(work.feed(outcome))
            if work.record is None:
                came[key].entries.append(outcome_entry(outcome))
                return
            record, line = written(work.record)
            accounts[key].add(record, work.reused)
            came[key].finished.append((index, line, reuse_of(work.reused)))
            del window.works[index], self._window_of[index]

        prepare = self._filling.prepare
        for outcome in outcomes_in(message):
            prepare.observe(outcome)
            feed(outcome)
        ready: list[Request] = []
        while following:
            prepared = prepare.following(following[:], context_length)
            following.clear()
            ready += prepared.ready
            for refusal in prepared.refused:
                feed(refusal)
        # of a row that a refusal has just finished nothing more is sent
        ready = [request for request in ready if request.key.index in self._window_of]
        return Settled(
            message.serial,
            [replace(rows, ledger=accounts[key].as_dict()) for key, rows in came.items()],
            ask(ready) if ready else None,
            prepare.digests(ready),
        )


def main() -> None:
    """The process: told what to work with, then blocks and outcomes; it ends when the run does."""
    pipe = Connection(int(sys.argv[1]))
    try:
        begin: Begin = pipe.recv()
    except (EOFError, OSError):  # the run ended before it had begun
        return
    wire = _Wire(pipe, begin.log)
    engine = _Engine(wire)
    blocks: queue.SimpleQueue[Block] = queue.SimpleQueue()
    try:
        windows = _begun(begin, wire, engine)
    except Exception as error:
        wire.broken(error, begun=False)

    def fill() -> None:
        while True:
            try:
                windows.fill(blocks.get())
            except Exception as error:
                wire.broken(error)

    threading.Thread(target=fill, name="llmbatch-fill", daemon=True).start()
    with calm_collector():
        _listen(wire, engine, blocks, windows)


def _listen(wire: _Wire, engine: _Engine, blocks: queue.SimpleQueue[Block], windows: _Windows) -> NoReturn:
    while True:
        message = wire.receive()
        try:
            if isinstance(message, Ready):
                engine.is_up(message.info)
            elif isinstance(message, Block):
                blocks.put(message)
            else:
                assert isinstance(message, Outcomes)  # noqa: S101 - for the type checker
                wire.send(windows.settle(message, engine.wait_ready().context_length))
        except Exception as error:
            wire.broken(error)


def _begun(begin: Begin, wire: _Wire, engine: _Engine) -> _Windows:
    if begin.version != __version__:
        raise JobError(f"llmbatch was changed from {begin.version} to {__version__} while the run goes on")
    job = job_from(begin.job)
    recipe = recipe_of(job)
    if changed := sorted(key for key, value in recipe.identity().items() if begin.identity.get(key) != value):
        raise JobError(
            f"{', '.join(changed)}: a file that the job is made of was changed while the run goes on, which keeps the old one"
        )
    # never started: for its tokenizer
    here = make_engine(job.model_path, engine_of(job, recipe), job.chat, Path(begin.log))

    def context_length() -> int | None:
        return engine.wait_ready().context_length if begin.context_length is None else begin.context_length

    preparer = Preparer(recipe, job.plan_in_use, here.tokenize, context_length)
    source = cache(lambda: open_source(kept_input(job.input, Path(begin.folder))))
    return _Windows(wire, Filling(preparer, engine, job.plan), preparer.room(job.run), source)


def _stop_of(block: Block) -> Cursor | None:
    return None if block.stop is None else Cursor(*block.stop)


if __name__ == "__main__":
    main()
