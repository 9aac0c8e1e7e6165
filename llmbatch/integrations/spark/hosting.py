"""Batches of rows in, in a Python worker of Spark; their answers out, in order, by the one host of the executor.

The host is started by the first task that needs one. Where it is killed another one is started, and what was not answered is asked
again: what it had answered is in the cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection
from typing import Any

import psutil

from llmbatch.core.errors import EngineError, RunError
from llmbatch.core.imports import environment
from llmbatch.engines.guardian import start_time
from llmbatch.integrations.spark.base import REQUEST, Call
from llmbatch.integrations.spark.host import HostSettings
from llmbatch.integrations.spark.wire import AHEAD, Answer, Asked, Facts, Place, answered_from, asked_bytes

_DEATHS = 5  # of the host without an answer between them, before the task fails
_DEATHS_BEFORE_APART = 2
_START_SECONDS = 120.0  # to begin to listen: it loads no model by then
_PAUSE_SECONDS = 0.05
_NONE = Answer(None, None)


@dataclass(frozen=True, slots=True)
class Hosting:
    """What every task is told of its host. ``threads`` is what Spark was told of OMP_NUM_THREADS, None: nothing.

    ``folder`` is for tests: a host there, that ends with this process. ``patience`` is as ``HostSettings`` has it.
    """

    application: str
    idle: float = 300.0
    engines: int = 1
    threads: str | None = None
    folder: str | None = None
    patience: float = 5.0

    def settings(self, *, apart: bool) -> HostSettings:
        """How the host of this process's executor is to run."""
        pid = executor()
        started = start_time(pid)
        place = Place.of(self.application, pid, started) if self.folder is None else None
        folder = self.folder if place is None else str(place.folder)
        return HostSettings(str(folder), (pid, started), self.idle, self.engines, apart, self.patience)

    def environment(self) -> dict[str, str]:
        """The host's. Spark gives its workers as many threads as a task has cores, which are too few for a model."""
        found = environment()
        found.pop("OMP_NUM_THREADS", None)
        if self.threads is not None:
            found["OMP_NUM_THREADS"] = self.threads
        if (gpus := _gpus_of_task()) and "CUDA_VISIBLE_DEVICES" not in found:
            found["CUDA_VISIBLE_DEVICES"] = gpus
        return found


def answered(
    batches: Iterable[Sequence[Any]], call: Call, hosting: Hosting, hear: Callable[[Facts], None] | None = None
) -> Iterator[list[Answer]]:
    """The answers of each batch of requests, texts or mappings, in order; the next batch is asked before one is given.

    A request that is None has no answer and no error. Raises ``JobError`` for what is wrong with the job, ``EngineError`` where
    the engine cannot start or keeps dying, and ``RunError`` for a row without an answer where ``call.fails``.
    """
    with _Talk(call, hosting, hear or (lambda _: None)) as talk:
        waiting: deque[list[bool]] = deque()
        for batch in batches:
            asked = [request is not None for request in batch]
            talk.send([_row(request) for request in batch if request is not None])
            waiting.append(asked)
            if len(waiting) >= AHEAD:
                yield _in_place(waiting.popleft(), talk.receive(), call)
        while waiting:
            yield _in_place(waiting.popleft(), talk.receive(), call)


def _row(request: Any) -> Mapping[str, Any]:
    return {REQUEST: request, "text": request} if isinstance(request, str) else request


def _in_place(asked: Sequence[bool], answers: Sequence[Answer], call: Call) -> list[Answer]:
    if call.fails and (failed := [answer.error for answer in answers if answer.error]):
        raise RunError(
            f"{len(failed):,} of {len(answers):,} rows of a batch have no answer, the first one: {failed[0]} (with "
            "failOnError => false ai_query gives the others their answers)"
        )
    each = iter(answers)
    return [next(each) if has_request else _NONE for has_request in asked]


class _Talk:
    """One task's connection to the host; through deaths of it."""

    def __init__(self, call: Call, hosting: Hosting, hear: Callable[[Facts], None]) -> None:
        self._call = call
        self._hosting = hosting
        self._hear = hear
        self._job = call.text
        self._connection: Connection | None = None
        self._unanswered: deque[bytes] = deque()
        self._deaths = 0

    def __enter__(self) -> _Talk:
        return self

    def __exit__(self, *exception: object) -> None:
        self._hang_up()

    def send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Ask a batch; an empty one is answered without the host."""
        message = asked_bytes(Asked(self._job, rows, self._call.as_it_came, self._call.null)) if rows else b""
        self._unanswered.append(message)
        if message:
            try:
                if self._connection is None:
                    self._open()
                else:
                    self._connection.send_bytes(message)
            except OSError as error:  # where it is listened to, another one is asked all again
                self._died(error)

    def receive(self) -> list[Answer]:
        """The answers of the batch that was asked first."""
        message = self._unanswered[0]
        while message:
            try:
                reply = self._open().recv_bytes()
            except (EOFError, OSError) as error:
                self._died(error)
                continue
            self._deaths = 0
            answers, facts = answered_from(reply)
            self._hear(facts)
            self._unanswered.popleft()
            return answers
        self._unanswered.popleft()
        return []

    def _open(self) -> Connection:
        """The connection; a new one, to a new host if need be, is told all that is not answered."""
        if self._connection is None:
            self._connection = _connected(self._hosting, apart=self._deaths >= _DEATHS_BEFORE_APART)
            for message in filter(None, self._unanswered):
                self._connection.send_bytes(message)
        return self._connection

    def _died(self, error: Exception) -> None:
        self._hang_up()
        self._deaths += 1
        if self._deaths > _DEATHS:
            log = self._hosting.settings(apart=False).place.log
            raise EngineError(
                f"the process that holds this executor's engine ended {self._deaths} times without an answer between; see {log}"
            ) from error

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connected(hosting: Hosting, *, apart: bool) -> Connection:
    """A connection to the executor's host, which is started where there is none. Raises ``EngineError`` where it does not start."""
    settings = hosting.settings(apart=apart)
    place = settings.place
    if (found := _knock(place)) is not None:
        return found
    with place.held("start"):
        if (found := _knock(place)) is not None:  # another task was faster
            return found
        process = _start(hosting, settings)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if (found := _knock(place)) is not None:
                return found
            if process.poll():
                raise EngineError(
                    f"the process that holds this executor's engine ended at once, with exit code {process.returncode}; see "
                    f"{place.log}"
                )
            if process.poll() == 0:  # one that is about to end still held its place
                process = _start(hosting, settings)
            time.sleep(_PAUSE_SECONDS)
    raise EngineError(
        f"the process that holds this executor's engine did not listen after {_START_SECONDS:g} s; see {place.log}"
    )


def _knock(place: Place) -> Connection | None:
    try:
        return Client(place.socket, "AF_UNIX")
    except (FileNotFoundError, ConnectionRefusedError, EOFError):
        return None


def _start(hosting: Hosting, settings: HostSettings) -> subprocess.Popen[bytes]:
    """The host: it outlives the worker that starts it."""
    with settings.place.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "llmbatch.integrations.spark.host", json.dumps(asdict(settings))],
            env=hosting.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def executor() -> int:
    """The process of the executor that this worker belongs to: the Java machine above it, else whoever started this process."""
    me = psutil.Process()
    return next((each.pid for each in me.parents() if each.name().startswith("java")), os.getpid())


def task() -> Any:
    """The ``TaskContext`` of the task that this process works on; None where it works on none."""
    pyspark = sys.modules.get("pyspark")
    context = None if pyspark is None else getattr(pyspark, "TaskContext", None)
    return None if context is None else context.get()


def _gpus_of_task() -> str:
    """The GPUs that Spark gave the task, as CUDA names them; empty where it gave none."""
    at_work = task()
    resources = {} if at_work is None else at_work.resources()
    return ",".join(resources["gpu"].addresses) if "gpu" in resources else ""


__all__ = ["Hosting", "answered", "executor", "task"]
