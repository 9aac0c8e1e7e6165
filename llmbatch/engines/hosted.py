"""An engine's settings in; that engine in another process of this machine out, as if it were here.

It is for engines that cannot live in one process side by side, each with devices of its own, and for any whose death is to cost
nobody else. Prompts are tokenized here, once, by an engine that is never started; what crosses the border is in ``messages``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from llmbatch import __version__
from llmbatch.core.errors import EngineDied, EngineError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Request, RequestKey, Usage
from llmbatch.engines.base import Engine, EngineInfo, EngineSettings
from llmbatch.engines.devices import Place
from llmbatch.engines.feed import Feed
from llmbatch.engines.guardian import Guardian
from llmbatch.engines.messages import (
    Answered,
    Begin,
    Died,
    End,
    Failed,
    GivenUp,
    GiveUp,
    Up,
    ask,
    death_of,
    error_of,
    outcomes_of,
)
from llmbatch.model.tokenizer import ChatSettings

_WAIT_SECONDS = 0.5  # for a message, or for something to send, before the caller can look around
_LOOK_SECONDS = 0.01  # as long as there is room: for a message, before it is looked what came into the feed
_END_SECONDS = 20.0  # that an engine may take to stop by itself
_LATE_SECONDS = 30.0  # beyond the engine's own timeout
_AHEAD = 4  # a quarter more than the engine holds is handed over, so that it need not wait for what comes next
_LEAST_AHEAD = 16


@dataclass(frozen=True, slots=True)
class Hosting:
    """What is to be made in the other process, and where that runs."""

    model: str
    settings: EngineSettings
    chat: ChatSettings
    log: Path
    place: Place = field(default_factory=Place)


class HostedEngine:
    """Implements ``Engine``. ``here`` is the same engine in this process, which is never started: it knows the tokenizer."""

    def __init__(self, here: Engine, hosting: Hosting) -> None:
        self._here = here
        self._hosting = hosting
        self._constraints: tuple[Constraint, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._guardian: Guardian | None = None
        self._room = _Room(0, 0)
        self._counts = Usage()
        self._busy = 0.0
        self._heard_at = 0.0

    def expect(self, constraints: Sequence[Constraint]) -> None:
        self._constraints = tuple(constraints)

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure] | None:
        return self._here.tokenize(prompts)

    def start(self) -> EngineInfo:
        hosting = self._hosting
        ours, theirs = Pipe()
        self._guardian = Guardian()
        self._pipe = ours
        with theirs:
            self._process = _process(theirs.fileno(), hosting)
        self._guardian.watch([self._process.pid])
        begin = Begin(
            __version__, hosting.model, hosting.settings, hosting.chat, hosting.log, self._constraints, hosting.place.cpus
        )  # fmt: skip
        try:
            ours.send(begin)
            message = ours.recv()
        except (EOFError, OSError):
            how = self._how_it_ended()
            self.stop()
            raise EngineError(f"the engine's process {how} while it started; see {hosting.log}") from None
        if isinstance(message, Failed):
            self.stop()
            raise error_of(message)
        assert isinstance(message, Up)  # noqa: S101 - for the type checker
        info = replace(message.info, pids=(self._process.pid, *message.info.pids))
        self._guardian.watch(info.pids)
        self._room = _Room.of(info)
        return info

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._pipe is None:
            raise EngineError("the engine has not been started, or was stopped")
        self._heard_at = time.monotonic()
        while True:
            self._hand_over(feed)
            if self._room.held:
                yield self._hear(_LOOK_SECONDS if self._room.is_free else _WAIT_SECONDS)
                self._see_that_it_lives()
            else:
                if feed.finished:
                    return
                feed.wait(_WAIT_SECONDS)
                self._heard_at = time.monotonic()  # an engine that has nothing to do gives no sign of life
                yield self._hear(0.0)

    def abort(self) -> None:
        if self._pipe is None or not self._room.held:
            return
        self._room.clear()
        try:
            self._pipe.send(GiveUp())
            end = time.monotonic() + _END_SECONDS
            while (left := end - time.monotonic()) > 0 and self._pipe.poll(left):
                message = self._pipe.recv()
                if isinstance(message, Answered):
                    self._account(message)
                if isinstance(message, GivenUp | Died):
                    return
        except (EOFError, OSError):
            return  # what is in flight in a dead engine is given up

    def stop(self) -> None:
        pipe, self._pipe = self._pipe, None
        process, guardian = self._process, self._guardian
        if pipe is not None and process is not None:
            try:
                pipe.send(End())
            except (OSError, ValueError):  # it is gone
                pass
            _end(process)
            pipe.close()
        if guardian is not None:
            guardian.close()
            self._guardian = None
        self._room.clear()

    def kill(self) -> None:
        """End it at once, without asking: a model that is being loaded cannot be asked. May be called from another thread."""
        if self._process is not None:
            self._process.kill()

    def counts(self) -> Usage:
        return self._counts

    def busy(self) -> float:
        return self._busy

    def _hand_over(self, feed: Feed) -> None:
        room, pipe = self._room, self._pipe
        if pipe is None or not room.is_free:
            return
        requests = feed.take(room.requests - len(room.held), room.tokens - room.held_tokens)
        if not requests:
            return
        room.add(requests)
        try:
            pipe.send(ask(requests))
        except OSError as error:
            raise self._death() from error

    def _hear(self, timeout: float) -> list[Outcome]:
        """The outcomes of the messages that are there, or come within the timeout. Raises ``EngineDied``."""
        outcomes: list[Outcome] = []
        try:
            while self._pipe is not None and self._pipe.poll(timeout):
                timeout = 0.0
                message: Any = self._pipe.recv()
                self._heard_at = time.monotonic()
                if isinstance(message, Died):
                    raise death_of(message)
                self._account(message)
                outcomes += self._room.take(outcomes_of(message))
        except (EOFError, OSError) as error:
            raise self._death() from error
        return outcomes

    def _account(self, message: Answered) -> None:
        self._counts, self._busy = Usage(*message.counts), message.busy

    def _see_that_it_lives(self) -> None:
        silent = time.monotonic() - self._heard_at
        if silent > self._hosting.settings.timeout + _LATE_SECONDS:
            self.kill()
            raise EngineDied(f"the engine's process gave no sign of life for {silent:.0f} s and was killed")

    def _death(self) -> EngineDied:
        return EngineDied(f"the engine's process {self._how_it_ended()}; see {self._hosting.log}")

    def _how_it_ended(self) -> str:
        if self._process is None:
            return "was stopped"
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        hint = " (by the kernel, where memory ran out)" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"


class _Room:
    """What the engine was handed and did not answer yet, held against what it takes at a time."""

    def __init__(self, requests: int, tokens: int) -> None:
        self.requests = requests
        self.tokens = tokens
        self.held: dict[RequestKey, int] = {}
        self.held_tokens = 0

    @classmethod
    def of(cls, info: EngineInfo) -> _Room:
        requests = info.in_flight or 2 * info.max_num_seqs
        tokens = info.in_flight_tokens or sys.maxsize // 2
        return cls(requests + max(requests // _AHEAD, _LEAST_AHEAD), tokens + tokens // _AHEAD)

    @property
    def is_free(self) -> bool:
        return len(self.held) < self.requests and (self.held_tokens < self.tokens or not self.held)

    def add(self, requests: Sequence[Request]) -> None:
        for request in requests:
            size = len(request.token_ids or ()) + len(request.partial) + len(request.target_ids)
            self.held[request.key] = size
            self.held_tokens += size

    def take(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Those of the outcomes that are waited for: of what was given up one may still have been on its way."""
        waited_for = [outcome for outcome in outcomes if outcome.key in self.held]
        for outcome in waited_for:
            self.held_tokens -= self.held.pop(outcome.key)
        return waited_for

    def clear(self) -> None:
        self.held.clear()
        self.held_tokens = 0


def _process(descriptor: int, hosting: Hosting) -> subprocess.Popen[bytes]:
    """The worker. It finds what we find, hears no Ctrl-C of the terminal, and writes to the engine's log."""
    path = os.pathsep.join(part for part in sys.path if part)
    with hosting.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "llmbatch.engines.worker", str(descriptor)],
            env={**os.environ, "PYTHONPATH": path, **hosting.place.environment},
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


__all__ = ["HostedEngine", "Hosting"]
