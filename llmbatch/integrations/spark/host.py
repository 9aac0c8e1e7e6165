"""The process that holds an executor's engine: batches of rows in, over a local socket, what became of each row out.

    python -P -m llmbatch.integrations.spark.host '{"folder": ..., "executor": [PID, START], "idle": SECONDS, ...}'

Python workers come and go, several an executor; this is one, so that a model is loaded once and the rows of all tasks are in one
running batch. It ends when nobody is connected for ``idle`` seconds, or when the executor's process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import EngineReady, Event, Note
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Record
from llmbatch.engines.guardian import start_time
from llmbatch.formats.base import Asked as HowAsked
from llmbatch.formats.outcome import Success, outcome_of
from llmbatch.integrations.live_job import Gone, Inbox
from llmbatch.integrations.spark.engines import Engines
from llmbatch.integrations.spark.wire import (
    AHEAD,
    Answer,
    Asked,
    Facts,
    Place,
    answered_bytes,
    asked_from,
    failed_bytes,
)
from llmbatch.job.job import Job

_LOOK_SECONDS = 0.5
_KEPT_SECONDS = 86_400.0
_WAITING = 128  # connections that may knock at a time


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a host runs; ``apart`` is for one that takes the place of some that were killed.

    ``patience``: for so many seconds the rows of a task that ended before it had its answers are gone on with. One that failed
    is run again by then, and takes what is on its way; the rows of one that was cancelled nobody asks for again.
    """

    folder: str
    executor: tuple[int, int | None]
    idle: float
    engines: int
    apart: bool = False
    patience: float = 5.0

    @property
    def place(self) -> Place:
        return Place(Path(self.folder))


class Host:
    """One host. ``run`` returns when its time is over."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._place = settings.place
        self._counts = _Counts(settings)
        self._engines = Engines(
            self._place.folder, self._hear, settings.engines, self._with_cache, apart=settings.apart
        )
        self._state = threading.Lock()
        self._connected = 0
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Listen until nobody needs it."""
        with contextlib.suppress(FileNotFoundError):
            Path(self._place.socket).unlink()  # of one that was killed: we hold the lock
        with Listener(self._place.socket, "AF_UNIX", _WAITING) as listener:
            self._counts.add("host_starts", 1)
            say(f"up for executor {self._settings.executor[0]}")
            threading.Thread(target=self._accept, args=(listener,), name="llmbatch-accept", daemon=True).start()
            why = self._wait()  # whoever comes after that starts another one
        say(f"ends: {why}")
        self._engines.close()

    def _wait(self) -> str:
        pid, started = self._settings.executor
        while True:
            time.sleep(_LOOK_SECONDS)
            if start_time(pid) != started and started is not None:
                return "its executor is gone"
            with self._state:
                if not self._connected and time.monotonic() - self._idle_since > self._settings.idle:
                    return f"nothing was asked for {self._settings.idle:g} s"

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except (OSError, EOFError):
                return
            with self._state:
                self._connected += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """One task: batches are begun as they come, and answered in their order."""
        replies: SimpleQueue[Future[bytes] | None] = SimpleQueue()
        threading.Thread(target=_reply, args=(connection, replies), daemon=True).start()
        under_way: deque[tuple[Future[bytes], Inbox]] = deque()
        try:
            with ThreadPoolExecutor(AHEAD) as pool:
                while True:
                    try:
                        message = connection.recv_bytes()
                    except (EOFError, OSError):
                        break  # the task is done, or was cancelled, or was killed
                    inbox: Inbox = SimpleQueue()
                    reply = pool.submit(self._answered, message, inbox)
                    replies.put(reply)
                    under_way.append((reply, inbox))
                    while under_way[0][0].done() and len(under_way) > 1:
                        under_way.popleft()
                wait([reply for reply, _ in under_way], self._settings.patience)
                for _, inbox in under_way:
                    inbox.put(Gone())
        finally:
            replies.put(None)
            with self._state:
                self._connected -= 1
                self._idle_since = time.monotonic()

    def _answered(self, message: bytes, inbox: Inbox) -> bytes:
        """The reply to a batch; an empty one, which nobody gets, where its task ended (``Gone`` came into the inbox)."""
        try:
            asked = asked_from(message)
            with self._engines.job(asked.job) as job:
                records, reused = job.records(asked.rows, inbox)
            self._counts.add("rows", len(records))
            self._counts.add("reused", reused)
            return answered_bytes([_answer(record, asked) for record in records], self._counts.facts())
        except Gone as gone:
            self._counts.add("given_up", gone.given_up)
            say(f"a task ended before its answers: {gone.given_up:,} requests were taken back")
            return b""
        except LlmbatchError as error:
            say(f"a batch failed: {error}")
            return failed_bytes(error)
        except Exception as error:
            say(f"a batch failed: {error!r}")
            return failed_bytes(
                EngineError(f"the host of the executor's engine failed: {error!r}; see {self._place.log}")
            )

    def _with_cache(self, job: Job) -> Job:
        """A task that is tried again, or whose host was killed, finds what was answered."""
        if job.reuse.cache is not None or not job.plan.fold:
            return job
        return job.model_copy(update={"reuse": job.reuse.model_copy(update={"cache": self._place.cache})})

    def _hear(self, event: Event) -> None:
        if isinstance(event, EngineReady):
            self._counts.add("engine_starts", 1)
            say(f"engine start {self._counts.facts().engine_starts}, {event.seconds:.1f} s: {event.description}")
        elif isinstance(event, Note):
            say(f"{event.level}: {event.message}")


class _Counts:
    """What is counted for an executor, also over hosts that were killed."""

    def __init__(self, settings: HostSettings) -> None:
        self._path = settings.place.counts
        self._state = threading.Lock()
        pid, started = settings.executor
        self._executor = f"{socket.gethostname()} {pid} {started}"
        self._numbers: dict[str, int] = {"engine_starts": 0, "host_starts": 0, "rows": 0, "reused": 0, "given_up": 0}
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="ascii").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # the last one may be torn
                    name, number = json.loads(line)
                    self._numbers[name] += number

    def add(self, name: str, number: int) -> None:
        with self._state:
            self._numbers[name] += number
            with self._path.open("a", encoding="ascii") as file:
                file.write(json.dumps([name, number]) + "\n")

    def facts(self) -> Facts:
        with self._state:
            return Facts(self._executor, **self._numbers)


def _reply(connection: Connection, replies: SimpleQueue[Future[bytes] | None]) -> None:
    with connection:
        while (reply := replies.get()) is not None:
            message = reply.result()
            with contextlib.suppress(OSError):  # nobody listens any more
                connection.send_bytes(message)


def _answer(record: Record, asked: Asked) -> Answer:
    how = HowAsked(own_check=asked.as_it_came)
    outcome = outcome_of(record_to_dict(record), how, strict=not asked.as_it_came)
    if isinstance(outcome, Success):
        said = outcome.output
        return Answer(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False), None)
    if outcome.kind in asked.null:
        return Answer(None, None)
    return Answer(None, f"{outcome.kind}: {outcome.message}")


def say(text: str) -> None:
    """A line of the host's log, with the time."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} llmbatch host {os.getpid()}: {text}", file=sys.stderr, flush=True)


def main(argument: str) -> None:
    """Be the host of an executor, where nobody is it yet."""
    given: dict[str, Any] = json.loads(argument)
    settings = HostSettings(**{**given, "executor": tuple(given["executor"])})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with settings.place.held("host", wait=False) as held:
        if not held:
            return
        sweep(settings.place)
        Host(settings).run()
        sys.stderr.flush()
        os._exit(0)  # batches that nobody waits for any more are not waited for


def sweep(place: Place) -> None:
    """Remove what applications have left behind that nobody has used for a day."""
    ours = place.folder.parent
    for application in ours.parent.iterdir():
        if application == ours or time.time() - application.stat().st_mtime < _KEPT_SECONDS:
            continue
        executors = [folder.name.partition("-") for folder in application.iterdir() if folder.is_dir()]
        if not any(str(start_time(int(pid))) == started for pid, _, started in executors):
            shutil.rmtree(application, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
