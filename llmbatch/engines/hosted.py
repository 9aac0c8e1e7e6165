"""An engine's settings in; that engine in another process of this machine out, as if it were here.

It is for engines that cannot live in one process side by side, each with devices of its own, and for any whose death is to cost
nobody else. The other process is ``worker``.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from llmbatch import __version__
from llmbatch.core.errors import EngineDied
from llmbatch.core.imports import environment
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.devices import Place
from llmbatch.engines.elsewhere import EngineElsewhere
from llmbatch.engines.guardian import Guardian
from llmbatch.engines.messages import Begin
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

_END_SECONDS = 20.0  # that an engine may take to stop by itself
_SEND_SECONDS = 60  # that it may take to read what it is sent


@dataclass(frozen=True, slots=True)
class Hosting:
    """What is to be made in the other process, and where that runs."""

    model: str
    settings: EngineSettings
    chat: ChatSettings
    log: Path
    place: Place = field(default_factory=Place)


def hosted(here: Engine, hosting: Hosting) -> EngineElsewhere:
    """The engine in a process of its own. ``here`` is the same in this one, for its tokenizer."""
    begin = Begin(
        __version__, hosting.model, hosting.settings, hosting.chat, hosting.log, cpus=hosting.place.cpus
    )  # fmt: skip
    return EngineElsewhere(here, begin, EngineProcess(hosting))


class EngineProcess:
    """The other process, and the pipe to it: a ``Link``. A guardian ends it when this process is killed."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._pipe: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: Guardian | None = None

    def open(self) -> None:
        self._pipe, theirs = Pipe()
        # a process that stands still reads nothing, and would keep ``send`` for ever once the pipe is full
        with socket.socket(fileno=os.dup(self._pipe.fileno())) as pipe:
            pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._guardian = Guardian()
        with theirs:
            self._process = _start(theirs.fileno(), self._hosting)
        self._guardian.watch([self._process.pid])

    def send(self, message: object) -> None:
        try:
            self._open_pipe.send(message)
        except BlockingIOError:  # half a message may be there, and the rest would never be read
            self.kill()
            raise

    def poll(self, timeout: float) -> bool:
        return self._open_pipe.poll(timeout)

    def receive(self) -> Any:
        return self._open_pipe.recv()

    def is_up(self, info: EngineInfo) -> EngineInfo:
        own = () if self._process is None else (self._process.pid,)
        info = replace(info, pids=(*own, *info.pids))
        if self._guardian is not None:
            self._guardian.watch(info.pids)
        return info

    def death(self) -> EngineDied:
        return EngineDied(f"the engine's process {self.how_it_ended()}; see {self._hosting.log}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        process, pipe, guardian = self._process, self._pipe, self._guardian
        if process is not None:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if pipe is not None:
            pipe.close()
            self._pipe = None
        if guardian is not None:
            guardian.close()
            self._guardian = None

    @property
    def _open_pipe(self) -> Connection:
        if self._pipe is None:
            raise EOFError
        return self._pipe

    def how_it_ended(self) -> str:
        """In words; waits for it."""
        return "was not started" if self._process is None else how_it_ended(self._process)


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """How a process went that has closed its pipe, in words; waits for its end."""
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    hint = " (by the kernel, where memory ran out)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _start(descriptor: int, hosting: Hosting) -> subprocess.Popen[bytes]:
    """The worker. It finds what we find, hears no Ctrl-C of the terminal, and writes to the engine's log."""
    with hosting.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "llmbatch.engines.worker", str(descriptor)],
            env={**environment(), **hosting.place.environment},
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


__all__ = ["EngineProcess", "Hosting", "hosted", "how_it_ended"]
