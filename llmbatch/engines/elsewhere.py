"""An engine on the other side of a border in; that engine out, as if it were here.

What crosses the border is in ``messages``; how it gets there is a ``Link``: a pipe to another process of this machine (``hosted``),
or whatever reaches another machine. Prompts are tokenized here, once, by an engine that is never started.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llmbatch.core.errors import EngineDied, EngineError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Request, RequestKey, Usage
from llmbatch.engines.base import Drafts, Engine, EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.messages import (
    Answered,
    Begin,
    Cancel,
    Died,
    End,
    Failed,
    GivenUp,
    GiveUp,
    Told,
    Up,
    ask,
    death_of,
    error_of,
    outcomes_of,
    pieces_of,
)

_WAIT_SECONDS = 0.5  # for a message, or for something to send, before the caller can look around
_LOOK_SECONDS = 0.01  # as long as there is room: for a message, before it is looked what came into the feed
_HURRY_SECONDS = 0.002  # the same where urgent requests may come, which need no room
_GIVE_UP_SECONDS = 20.0
_LATE_SECONDS = 30.0  # beyond the engine's own timeout
_AHEAD = 4  # a quarter more than the engine holds is handed over, so that it need not wait for what comes next
_LEAST_AHEAD = 16


class Link(Protocol):
    """The way to an engine elsewhere. ``send``, ``poll`` and ``receive`` raise ``OSError`` or ``EOFError`` where that is gone."""

    def open(self) -> None:
        """Start what is on the other side: it waits for ``Begin``."""

    def send(self, message: object) -> None:
        """Hand a message over; it arrives behind those before it."""

    def poll(self, timeout: float) -> bool:
        """Whether there is a message, or comes one within so many seconds."""

    def receive(self) -> Any:
        """The next message; blocks until there is one."""

    def is_up(self, info: EngineInfo) -> EngineInfo:
        """The engine is up; what it is, with the processes of this machine that must not outlive the run."""

    def death(self) -> EngineDied:
        """How the other side went, once it is gone."""

    def kill(self) -> None:
        """End the other side at once. May be called from any thread."""

    def close(self) -> None:
        """The other side was told to end: wait for it, and end it where it does not. Nothing of it is left. May be called twice."""


class EngineElsewhere:
    """Implements ``Engine``. ``here`` is the same engine in this process, which is never started: it knows the tokenizer."""

    def __init__(self, here: Engine, begin: Begin, link: Link) -> None:
        self._here = here
        self._begin = begin
        self._link = link
        self._is_open = False
        self._room = _Room(0, 0)
        self._counts = Usage()
        self._busy = 0.0
        self._drafts = Drafts()
        self._heard_at = 0.0
        self._death: EngineDied | None = None  # known, and not yet told

    def expect(self, constraints: Sequence[Constraint]) -> None:
        self._begin = replace(self._begin, constraints=tuple(constraints))

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._here.tokenize(prompts)

    def start(self) -> EngineInfo:
        link, self._is_open = self._link, True
        try:
            link.open()
        except OSError as error:
            self.stop()
            raise EngineError(f"its process could not be started: {error}") from error
        try:
            link.send(self._begin)
            message = link.receive()
        except (EOFError, OSError):
            death = link.death()
            self.stop()
            raise EngineError(f"it did not start: {death}") from None
        if isinstance(message, Failed):
            self.stop()
            raise error_of(message)
        assert isinstance(message, Up)  # noqa: S101 - for the type checker
        self._room = _Room.of(message.info)
        return link.is_up(message.info)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if not self._is_open:
            raise EngineError("the engine has not been started, or was stopped")
        self._heard_at = time.monotonic()
        while True:
            self._hand_over(feed)
            if self._room.held:
                look = _HURRY_SECONDS if feed.hurries else _LOOK_SECONDS if self._room.is_free else _WAIT_SECONDS
                yield self._hear(look, feed)
                self._see_that_it_lives()
            else:
                if feed.finished:
                    return
                feed.wait(_WAIT_SECONDS)
                self._heard_at = time.monotonic()  # an engine that has nothing to do gives no sign of life
                yield self._hear(0.0, feed)

    def abort(self) -> None:
        if not self._is_open or not self._room.held:
            return
        self._room.clear()
        try:
            self._link.send(GiveUp())
            end = time.monotonic() + _GIVE_UP_SECONDS
            while (left := end - time.monotonic()) > 0 and self._link.poll(left):
                message = self._link.receive()
                if isinstance(message, Answered):
                    self._account(message)
                if isinstance(message, GivenUp | Died):
                    return
        except (EOFError, OSError):
            return  # what is in flight in a dead engine is given up

    def stop(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self._link.send(End())
            except (EOFError, OSError):
                pass  # it is gone
            self._link.close()
        self._room.clear()

    def kill(self) -> None:
        """End it at once, without asking: a model that is being loaded cannot be asked. May be called from another thread."""
        self._link.kill()

    def counts(self) -> Usage:
        return self._counts

    def busy(self) -> float:
        return self._busy

    def drafts(self) -> Drafts:
        return self._drafts

    def _hand_over(self, feed: Feed) -> None:
        room = self._room
        if self._death is not None:
            return
        if cancelled := feed.take_cancelled():
            self._send(Cancel([tuple(key) for key in cancelled]))
        if not room.is_free and not feed.urgent:
            return
        requests = feed.take(room.requests - len(room.held), room.tokens - room.held_tokens)
        if not requests:
            return
        room.add(requests)
        self._send(ask(requests))

    def _send(self, message: object) -> None:
        try:
            self._link.send(message)
        except (EOFError, OSError):
            return  # what it answered before it went is still to be heard, and then that

    def _hear(self, timeout: float, feed: Feed) -> list[Outcome]:
        """The outcomes of the messages that are there, or come within the timeout. Raises ``EngineDied``, once all are taken."""
        outcomes: list[Outcome] = []
        while self._death is None and self._is_open:
            try:
                if not self._link.poll(timeout):
                    break
                message = self._link.receive()
            except (EOFError, OSError):
                self._death = self._link.death()
                break
            timeout = 0.0
            self._heard_at = time.monotonic()
            if isinstance(message, Died):
                self._death = death_of(message)
                break
            if isinstance(message, GivenUp):
                continue  # the answer to an ``abort`` that had not the time to wait for it
            if isinstance(message, Told):
                feed.tell(pieces_of(message))
                continue
            self._account(message)
            outcomes += self._room.take(outcomes_of(message))
        if self._death is not None and not outcomes:
            raise self._death
        return outcomes

    def _account(self, message: Answered) -> None:
        self._counts, self._busy, self._drafts = Usage(*message.counts), message.busy, message.drafts

    def _see_that_it_lives(self) -> None:
        silent = time.monotonic() - self._heard_at
        if silent > self._begin.settings.timeout + _LATE_SECONDS:
            self.kill()
            raise EngineDied(f"the engine's process gave no sign of life for {silent:.0f} s and was killed")


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


__all__ = ["EngineElsewhere", "Link"]
