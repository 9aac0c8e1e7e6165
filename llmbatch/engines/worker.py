"""A wire to a driver in; one engine behind it, from its start to its end, in this process. The other side is ``elsewhere``.

``python -P -m llmbatch.engines.worker DESCRIPTOR`` is what ``hosted`` starts; an actor of a cluster calls ``serve``. When the
driver is gone, however it went, so is this process, and with it what its engine started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from llmbatch import __version__
from llmbatch.core.errors import EngineDied, JobError, LlmbatchError
from llmbatch.core.types import Completion, Outcome, Piece, RequestKey, Usage
from llmbatch.engines.base import Drafts, Engine, Speculates
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.messages import (
    Ask,
    Asked,
    Begin,
    Cancel,
    End,
    GivenUp,
    GiveUp,
    Up,
    answered,
    died,
    failed,
    told,
)

_PAUSE_SECONDS = 0.004  # between two messages: what finishes meanwhile goes in one
_SIGN_SECONDS = 1.0


class Wire(Protocol):
    """What carries messages. ``recv`` blocks; where the driver is gone both raise ``OSError`` or ``EOFError``."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...


class _Speaker:
    """Sends what finished, in a thread of its own, so that the engine waits for no message; many rows in one."""

    def __init__(self, wire: Wire, engine: Engine) -> None:
        self._wire = wire
        self._engine = engine
        self._waiting: deque[Outcome] = deque()
        self._pieces: deque[Piece] = deque()
        self._news = threading.Event()
        self._sending = threading.Lock()
        self._said_at = time.monotonic()
        threading.Thread(target=self._speak, name="llmbatch-speaker", daemon=True).start()

    def add(self, outcomes: list[Outcome], *, busy: bool) -> None:
        """These finished. ``busy``: the engine has work, so it gives a sign of life now and then."""
        self._waiting.extend(outcomes)
        if outcomes or (busy and time.monotonic() - self._said_at > _SIGN_SECONDS):
            self._news.set()

    def tell(self, pieces: Sequence[Piece]) -> None:
        """These parts of answers came."""
        self._pieces.extend(pieces)
        self._news.set()

    def say(self, message: object) -> None:
        """Something else, after all that finished before."""
        self._send()
        with self._sending:
            self._wire.send(message)

    def _speak(self) -> None:
        while self._news.wait():
            self._news.clear()
            try:
                self._send()
            except OSError:
                return  # the driver is gone: the listener ends this process
            time.sleep(_PAUSE_SECONDS)

    def _send(self) -> None:
        with self._sending:
            outcomes = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self._pieces:  # those of the outcomes are there by now
                self._wire.send(told([self._pieces.popleft() for _ in range(len(self._pieces))]))
            self._said_at = time.monotonic()
            engine = self._engine
            drafts = engine.drafts() if isinstance(engine, Speculates) else Drafts()
            self._wire.send(answered(outcomes, engine.counts(), engine.busy(), drafts))


class _Listener:
    """Takes what the driver sends, in a thread of its own: requests go into the feed. Where the driver is gone, all ends."""

    def __init__(self, wire: Wire, feed: Feed) -> None:
        self._wire = wire
        self._feed = feed
        self.withdrawn: deque[RequestKey] = deque()  # requests that nobody wants any more, and the engine never had
        self.give_up = False
        self.ending = False
        threading.Thread(target=self._listen, name="llmbatch-listener", daemon=True).start()

    def _listen(self) -> None:
        asked = Asked()
        try:
            while not self.ending:
                match self._wire.recv():
                    case Ask() as message:
                        requests = asked.requests(message)
                        if message.live:
                            self._feed.push_urgent([request for request in requests if request.urgent])
                            requests = [request for request in requests if not request.urgent]
                        self._feed.push(requests)
                    case Cancel() as message:
                        unwanted = {RequestKey(*key) for key in message.keys}
                        self.withdrawn.extend(self._feed.withdraw(unwanted))
                        self._feed.cancel(unwanted.__contains__)
                        self._feed.wake()
                    case GiveUp():
                        self.give_up = True
                        self._feed.wake()
                    case End():
                        self.ending = True
                        self._feed.wake()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGKILL)  # the engine may be anywhere; the guardian ends what it started


def _serve(engine: Engine, feed: Feed, heard: _Listener, speaker: _Speaker) -> None:
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
        withdrawn = [heard.withdrawn.popleft() for _ in range(len(heard.withdrawn))]
        outcomes += [Completion(key, "", "abort", Usage()) for key in withdrawn]
        speaker.add(outcomes, busy=bool(feed.in_flight))
        if heard.give_up:
            engine.abort()
            feed.take(sys.maxsize, sys.maxsize)  # what waits is given up too
            feed.recall()
            heard.give_up = False
            speaker.say(GivenUp())
        if heard.ending:
            return


def serve(wire: Wire) -> None:
    """Be the engine that the first message asks for, until it is told to end or dies."""
    begin: Begin = wire.recv()
    if begin.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, begin.cpus)
    feed = Feed(hurries=True)
    heard = _Listener(wire, feed)
    try:
        if begin.version != __version__:
            raise JobError(f"the driver is llmbatch {begin.version}, this engine's machine has {__version__}")
        engine = kind_of(begin.settings.name).make(begin.model, begin.settings, begin.chat, begin.log)
        engine.expect(begin.constraints)
        info = engine.start()
    except LlmbatchError as error:
        wire.send(failed(error))
        return
    wire.send(Up(info))
    speaker = _Speaker(wire, engine)
    feed.listen(told=speaker.tell)
    try:
        _serve(engine, feed, heard, speaker)
    except EngineDied as death:
        speaker.say(died(death))
    engine.stop()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
