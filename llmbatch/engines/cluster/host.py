"""Messages for an engine in; its answers out: the actor on a node of the cluster. The engine is in a process below it.

So what an engine does to its process costs the actor nothing, and it can say how that process went. The actor hands messages on,
both ways; Ray carries them as what its calls take and return. When the driver is gone Ray ends the actor, and with it goes the
engine.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch import __version__
from llmbatch.engines.cluster.parcels import Chunk, Listing, Shelf
from llmbatch.engines.hosted import EngineProcess, Hosting
from llmbatch.engines.messages import Begin

_PULL_SECONDS = 1.0  # that a pull waits for the first message
_GATHER_SECONDS = 0.01  # and then for more: each answer of an actor costs its driver some time
_MOST_MESSAGES = 256


class About(NamedTuple):
    """Where an actor runs, and with what."""

    version: str
    machine: str
    node: str


class Pulled(NamedTuple):
    """Messages of the engine, what its log has got since, and once its process is gone how it went."""

    messages: list[Any]
    log: bytes
    gone: str | None


class Host:
    """The actor. Its methods are called from several threads."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="llmbatch-"))
        self._process: EngineProcess | None = None
        self._shelf = Shelf()
        self._log_read = 0
        self._reading = threading.Lock()

    def about(self) -> About:
        import ray

        return About(__version__, socket.gethostname(), ray.get_runtime_context().get_node_id())

    def find(self, listing: Listing) -> str | None:
        """As ``Shelf``, and so the next three."""
        return self._shelf.find(listing)

    def expect(self, listing: Listing) -> str | None:
        return self._shelf.begin(listing)

    def add(self, chunk: Chunk) -> None:
        self._shelf.add(chunk)

    def complete(self) -> str:
        return self._shelf.end()

    def begin(self, begin: Begin) -> None:
        """Start the engine's process and give it its first message."""
        begin = replace(begin, log=self._folder / "engine.log")
        process = EngineProcess(Hosting(begin.model, begin.settings, begin.chat, begin.log))
        process.open()
        process.send(begin)
        self._process = process

    def push(self, message: object) -> None:
        """A message for the engine. Raises ``OSError`` or ``EOFError`` where its process is gone."""
        self._running.send(message)

    def pull(self) -> Pulled:
        """The engine's messages since the last call; waits a while for the first."""
        messages: list[Any] = []
        gone = None
        wait, end = _PULL_SECONDS, 0.0
        try:
            while len(messages) < _MOST_MESSAGES and self._running.poll(wait):
                messages.append(self._running.receive())
                end = end or time.monotonic() + _GATHER_SECONDS
                wait = max(0.0, end - time.monotonic())
        except (EOFError, OSError):
            gone = self._running.how_it_ended()
        return Pulled(messages, self._log(), gone)

    def close(self) -> bytes:
        """The engine was told to end: wait for it; the rest of its log."""
        if self._process is not None:
            self._process.close()
        log = self._log()
        shutil.rmtree(self._folder, ignore_errors=True)
        return log

    @property
    def _running(self) -> EngineProcess:
        if self._process is None:
            raise EOFError
        return self._process

    def _log(self) -> bytes:
        try:
            with self._reading, (self._folder / "engine.log").open("rb") as file:
                file.seek(self._log_read)
                data = file.read(1 << 20)
                self._log_read += len(data)
                return data
        except OSError:
            return b""


__all__ = ["About", "Host", "Pulled"]
