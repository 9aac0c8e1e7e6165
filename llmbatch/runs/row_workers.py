"""Blocks of rows and outcomes in; their planned windows, and what came of the outcomes, out: by processes beside this one.

A row worker renders, tokenizes and plans the rows that it is given, and keeps their works: it judges what the engine answered, and
makes requests of what follows and records of what is finished. Everything else stays with the run, which alone reads the input,
drives the engine and writes the folder. So all that is promised of a run holds with workers as without, and when one is killed the
run takes its rows back: the journal says how far each of them had come.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from multiprocessing import Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from llmbatch.core import errors
from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.imports import environment
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Cursor, Outcome, Request, Row
from llmbatch.engines.base import Driver
from llmbatch.engines.hosted import how_it_ended
from llmbatch.engines.messages import Asked
from llmbatch.engines.supervised import Cancelled
from llmbatch.job.prepare import Room
from llmbatch.runs.filling import Filling
from llmbatch.runs.row_messages import (
    Begin,
    Broken,
    Filled,
    Need,
    PlainReused,
    Ready,
    Settled,
    WindowKey,
    asked_in,
    block,
    outcomes,
    read_block,
    window_of,
)
from llmbatch.runs.window import OpenWindow
from llmbatch.sources.base import Source

_LOOK_SECONDS = 0.1  # whether the engine is up by now
_END_SECONDS = 20.0
_DEATHS = 3  # of each worker, before no more are started
_HERE = "what comes is worked on in this process, unless others are left"


class Came(NamedTuple):
    """What came of outcomes for rows of one window: those that are finished, journal entries of the others, and their account."""

    window: OpenWindow
    finished: list[tuple[int, bytes, PlainReused | None]]
    entries: list[bytes]
    ledger: Ledger


class Answer(NamedTuple):
    """What came of outcomes that were sent to a worker together; ``asked`` is what is to be asked next, each with its digest."""

    came: list[Came]
    asked: list[tuple[Request, bytes | None]]


class Lost(NamedTuple):
    """What a worker had in hand when it ended: its windows, and the outcomes that it had not answered."""

    windows: list[OpenWindow]
    outcomes: list[Outcome]


class RowWorkers:
    """So many processes at most; each is started when there is something for it to do, and replaced where it ends, a few times.

    Two threads use it: the reader's gives blocks and waits for their windows, the loop's adds outcomes and takes answers. What
    only one of them touches needs no lock: of the loop's thread those are what workers were sent and the windows that it admitted.
    ``_whose`` is written by the reader's before the loop's hears of a window, and by the loop's afterwards.
    """

    def __init__(self, count: int, begin: Begin, log: Path, driver: Driver, tell: Watcher) -> None:
        self.count = count
        self._begin = begin
        self._log = log
        self._driver = driver
        self._tell = tell
        self._whose: dict[OpenWindow, tuple[_Worker, WindowKey]] = {}
        self._blocks = 0
        self._changed = threading.Condition()  # for what the threads that listen change too: all that follows
        self._workers: list[_Worker] = []
        self._answers: deque[tuple[_Worker, Settled]] = deque()
        self._error: LlmbatchError | None = None
        self._deaths = 0
        self._given_up = False  # no more are started
        self._stopped = False
        self._ready: Callable[[], None] = lambda: None

    def start(self, ready: Callable[[], None]) -> None:
        """``ready`` is called, from other threads, whenever there is something for the loop to take."""
        self._ready = ready

    # the reader's thread

    @property
    def engine_is_up(self) -> bool:
        """Whether the engine is up."""
        return self._driver.info is not None

    def give(self, rows: Sequence[Row] | int, start: Cursor, stop: Cursor | None) -> Given:
        """Give a block to the worker that has the fewest: rows, or how many it is to read from ``start`` on.

        ``stop``: where the row behind it is.
        """
        worker = self._idlest()
        given = Given(self, worker, rows, start, stop, self._blocks)
        self._blocks += 1
        if worker is not None:
            with self._changed:
                worker.given[given.number] = given
            worker.send(block(given.number, rows, start, stop))
        return given

    def wait_for(self, given: Given) -> Filled | None:
        """The next window of a block; None where its worker is gone. Raises ``Cancelled`` once all is stopped."""
        worker = given.worker
        while True:
            with self._changed:
                if self._stopped:
                    raise Cancelled
                if worker is None or worker.gone:
                    return None
                if given.filled:
                    return given.filled.popleft()
                self._changed.wait(_LOOK_SECONDS)
            if (info := self._driver.info) is not None and worker.info != info:
                worker.info = info
                worker.send(Ready(info))

    def belongs(self, window: OpenWindow, worker: _Worker, key: WindowKey) -> None:
        """The works of a window are a worker's."""
        window.elsewhere = True
        self._whose[window] = worker, key

    def _idlest(self) -> _Worker | None:
        with self._changed:
            alive = [worker for worker in self._workers if not worker.gone]
            free = min(alive, key=lambda worker: len(worker.given), default=None)
            if (free is not None and not free.given) or len(alive) >= self.count or self._given_up or self._stopped:
                return free
            try:
                started = _Worker(self._begin, self._log, self._hear)
            except OSError as error:
                self._given_up = True
                why = error.strerror or error
            else:
                self._workers.append(started)
                return started
        self._tell(Note("warning", f"run.workers: a process could not be started ({why}): {_HERE}"))
        return free

    # the loop's thread

    def admit(self, window: OpenWindow) -> None:
        """The loop takes a window in."""
        if window.elsewhere:
            worker, key = self._whose[window]
            worker.windows[key] = window

    def seal(self, window: OpenWindow) -> None:
        """Every row of a window has its record."""
        if window.elsewhere:
            worker, key = self._whose.pop(window)
            worker.windows.pop(key, None)

    def add(self, window: OpenWindow, outcome: Outcome) -> None:
        """An outcome of a request of a worker's window; it goes with the others that are added before ``send``."""
        self._whose[window][0].collected.append(outcome)

    def send(self) -> None:
        """Send the workers what was added."""
        for worker in self._workers:
            if worker.collected:
                found, worker.collected = worker.collected, []
                worker.serial += 1
                worker.sent.append((worker.serial, found))
                worker.send(outcomes(worker.serial, found))

    def answers(self) -> Iterator[Answer]:
        """What came of outcomes so far. Raises what a worker says that went wrong with a row."""
        yield from self._answered()
        if self._error is not None:
            raise self._error

    def last_answers(self, seconds: float) -> Iterator[Answer]:
        """What came of outcomes, and comes within so many seconds, whatever else went wrong."""
        self.send()
        end = time.monotonic() + seconds
        while True:
            yield from self._answered()
            with self._changed:
                self._changed.wait_for(lambda: bool(self._answers) or not self._will_answer(), end - time.monotonic())
                if not self._answers:
                    return

    def _will_answer(self) -> bool:
        return any(worker.sent and not worker.gone for worker in self._workers)

    def _answered(self) -> Iterator[Answer]:
        while self._answers:
            worker, settled = self._answers.popleft()
            serial, _ = worker.sent.popleft()
            assert serial == settled.serial  # noqa: S101 - in the order of sending
            came = []
            for rows in settled.rows:
                window = worker.windows[rows.key]
                came.append(Came(window, rows.finished, rows.entries, Ledger.from_dict(rows.ledger)))
            yield Answer(came, asked_in(settled, worker.asked))

    def lost(self) -> Iterator[Lost]:
        """What workers had in hand that are gone, once all answers of theirs are taken: it is theirs no more."""
        for worker in self._workers:
            if not worker.is_lost or self._answers:
                continue
            left = [outcome for _, found in worker.sent for outcome in found] + worker.collected
            windows = list(worker.windows.values())
            worker.sent.clear()
            worker.collected, worker.windows = [], {}
            for window in windows:
                del self._whose[window]
                window.elsewhere = False
            yield Lost([window for window in windows if not window.complete], left)

    @property
    def pending(self) -> bool:
        """Whether outcomes were added that nothing was heard of yet."""
        return any(worker.collected or worker.sent for worker in self._workers)

    def wait(self, timeout: float) -> None:
        """Until there is something to take, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(self._news, timeout)

    def stop(self) -> None:
        """End the processes. What they have in hand is owed again. May be called twice."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.end()
        if self._workers and self._log.exists() and not self._log.stat().st_size:
            self._log.unlink()

    def _news(self) -> bool:
        return bool(self._answers) or self._error is not None or any(worker.is_lost for worker in self._workers)

    # the threads that listen to the workers

    def _hear(self, worker: _Worker, message: Any) -> None:
        """Take a message of a worker's; text is how it ended, and the last one."""
        said = ""
        with self._changed:
            if isinstance(message, Filled):
                given = worker.given[message.key[0]]
                given.filled.append(message)
                if message.last:
                    del worker.given[given.number]
            elif isinstance(message, Settled):
                self._answers.append((worker, message))
            elif isinstance(message, Broken) and message.begun:
                self._error = self._error or _error_of(message)
            elif isinstance(message, Broken):
                said, self._given_up = "" if self._given_up else f"{message.message}: {_HERE}", True
            elif isinstance(message, str):
                said = self._is_gone(worker, message)
            self._changed.notify_all()
        if isinstance(message, Need):
            self._driver.need()
        elif not isinstance(message, Filled):
            self._ready()
        if said:
            self._tell(Note("warning", f"run.workers: {said}"))

    def _is_gone(self, worker: _Worker, how: str) -> str:
        """Note that a worker has ended; returns what a person is to know of that."""
        worker.gone = True
        worker.given.clear()  # who waits for one sees that
        self._deaths += 1
        if self._stopped or self._given_up or self._error:
            return ""
        self._given_up = self._deaths >= _DEATHS * self.count
        log = f"; see {self._log}" if self._log.exists() and self._log.stat().st_size else ""
        goes_on = (
            f"that was the last time that one is replaced, {_HERE}" if self._given_up else "another one takes its place"
        )
        return f"a row worker {how}{log}. Its rows are worked on in this process, and {goes_on}; nothing is lost"


class Given:
    """A block of rows that was given to a worker, until all of its windows are there."""

    def __init__(
        self,
        workers: RowWorkers,
        worker: _Worker | None,
        rows: Sequence[Row] | int,
        start: Cursor,
        stop: Cursor | None,
        number: int,
    ) -> None:
        self.worker = worker
        self.number = number
        self.filled: deque[Filled] = deque()
        self._workers = workers
        self._rows = rows
        self._start = start
        self._stop = stop

    def windows(self, number: int, filling: Filling, room: Room, source: Source) -> Iterator[OpenWindow]:
        """The windows of the block, planned, from this number on. Where the worker ends before, the rest is filled here."""
        done = 0
        while (message := self._workers.wait_for(self)) is not None:
            assert self.worker is not None  # noqa: S101 - for the type checker
            window = window_of(message, number, self.worker.asked_ahead)
            self._workers.belongs(window, self.worker, message.key)
            number, done = number + 1, done + len(window.order)
            yield window
            if message.last:
                return
        rows = read_block(source, self._start, self._rows) if isinstance(self._rows, int) else self._rows
        for opened in filling.windows(islice(rows, done, None), self._stop, room):
            opened.window.bounds = opened.window.bounds._replace(window=number)
            filling.plan(opened)
            number += 1
            yield opened.window


class _Worker:
    """One process, with a thread that sends to it and one that listens: whoever gives it something never waits for it."""

    def __init__(self, begin: Begin, log: Path, heard: Callable[[_Worker, Any], None]) -> None:
        self.given: dict[int, Given] = {}  # blocks of which windows are still to come
        self.gone = False
        self.info: Any = None  # what it was told of the engine
        self.windows: dict[WindowKey, OpenWindow] = {}  # those that the loop has
        self.collected: list[Outcome] = []
        self.sent: deque[tuple[int, list[Outcome]]] = deque()  # that nothing was heard of
        self.serial = 0
        self.asked, self.asked_ahead = Asked(), Asked()  # of the loop's thread, and of the reader's
        self._heard = heard
        self._outbox: SimpleQueue[object] = SimpleQueue()
        self._pipe, theirs = Pipe()
        with theirs, log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "llmbatch.runs.row_worker", str(theirs.fileno())],
                env={**environment(), **_ONE_THREAD}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        self.send(begin)
        self._threads = [
            threading.Thread(target=target, name=f"llmbatch-row-worker-{name}", daemon=True)
            for name, target in (("send", self._send_all), ("hear", self._hear_all))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: object) -> None:
        """Hand a message over, in this order."""
        self._outbox.put(message)

    def end(self) -> None:
        """End the process at once: all that it knows is known elsewhere too."""
        self._process.kill()
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._process.wait()
        self._pipe.close()

    @property
    def is_lost(self) -> bool:
        """Whether it has ended with something in hand."""
        return self.gone and bool(self.sent or self.collected or self.windows)

    def _send_all(self) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                self._pipe.send(message)
        except Exception as error:  # it is gone, or there is no memory for a message: who listens says so
            logging.getLogger(__name__).debug("a row worker was sent nothing more: %r", error)
            self._process.kill()

    def _hear_all(self) -> None:
        try:
            while True:
                self._heard(self, self._pipe.recv())
        except (EOFError, OSError):
            how = how_it_ended(self._process)
        except Exception as error:  # of a watcher, or there is no memory for a message
            self._process.kill()
            how = f"could not be heard: {error!r}"
        with contextlib.suppress(Empty):
            while True:  # what it was not sent yet need not be kept
                self._outbox.get_nowait()
        self._outbox.put(None)
        self._heard(self, how)


# several workers share the processors: the tokenizer of each is to take one
_ONE_THREAD: Mapping[str, str] = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _error_of(message: Broken) -> LlmbatchError:
    kind = getattr(errors, message.kind, RunError)
    return kind(message.message) if issubclass(kind, LlmbatchError) else RunError(message.message)


__all__ = ["Answer", "Came", "Given", "Lost", "RowWorkers"]
