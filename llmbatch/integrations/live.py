"""Requests that come one by one, from any thread, in; a future of the outcome of each, out: one engine answers all that are there.

For tools that ask while they go on, with many samples at a time. The engines are those of a run, supervised, in a thread: a request
joins the batch that is running, and what is in flight when an engine dies is asked again.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import Watcher
from llmbatch.core.types import Completion, Failure, Outcome, Prompt, Request, RequestKey, Usage
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.making import Maker
from llmbatch.engines.replicas import drive
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.supervised import Cancelled
from llmbatch.job.prepare import tokenized
from llmbatch.model.tokenizer import ChatSettings

_END_SECONDS = 30.0


class LiveEngine:
    """The engines of one model. They start with the first request, and end with ``close``."""

    def __init__(
        self, model: str, settings: EngineSettings, chat: ChatSettings, tell: Watcher, folder: Path | None = None
    ) -> None:
        """``folder`` gets the engines' logs, and has to be there; without one they are kept until ``close``."""
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="llmbatch-")
            folder = Path(self._temporary.name)
        make = Maker(model, settings, chat, folder)
        self._driver = drive(make, make.settings, tell, more=make.more)
        self._feed = Feed()
        self._indexes = itertools.count()
        self._tokenizing = threading.Lock()
        self._state = threading.Lock()  # for what follows
        self._futures: dict[RequestKey, Future[Outcome]] = {}
        self._unwanted: set[RequestKey] = set()  # of these
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is, once it is up."""
        return self._driver.info

    def prove(self) -> None:
        """Have the engine look at its arguments and its model, before it is started. Raises ``JobError`` for what is wrong."""
        self._driver.tokenize(())

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        """As the engine's own; may be called from any thread, also before the engine is up."""
        with self._tokenizing:
            return self._driver.tokenize(prompts)

    def ready(self) -> EngineInfo:
        """Start the engine where it is not up, and wait for it. Raises ``EngineError`` where it cannot start, or was closed."""
        with self._state:
            if self._broken is None:
                self._start()
        try:
            info = self._driver.wait_ready()
        except Cancelled:
            info = None
        if self._broken is not None or info is None:
            raise self._broken or EngineError("the engine was closed")
        return info

    def ask(self, requests: Sequence[Request]) -> list[Future[Outcome]]:
        """Futures of the outcomes, in the requests' order; their indexes are given here.

        A prompt that has no token ids yet is tokenized before it returns.
        A future has an ``EngineError`` where the engine cannot start, or died more often than its settings allow.
        """
        asked = [replace(request, key=request.key._replace(index=next(self._indexes))) for request in requests]
        prepared = tokenized(asked, self.tokenize)
        futures: dict[RequestKey, Future[Outcome]] = {request.key: Future() for request in asked}
        sent: list[Request] = []
        with self._state:
            if self._broken is not None:
                for future in futures.values():
                    future.set_exception(self._broken)
            else:
                for refusal in prepared.refused:
                    futures[refusal.key].set_result(refusal)
                sent = prepared.ready
                self._futures |= {request.key: futures[request.key] for request in sent}
            if sent:
                self._start()
        self._feed.push(sent)
        return list(futures.values())

    def give_up(self, futures: Collection[Future[Outcome]]) -> None:
        """Nobody wants these any more: what waits is not asked, and what is in flight is ended where the engine can do that.

        They get an outcome all the same, by and by: an answer with the finish reason ``abort``, or the answer itself.
        """
        given = set(map(id, futures))
        with self._state:
            keys = {key for key, future in self._futures.items() if id(future) in given}
            self._unwanted |= keys
        for key in self._feed.withdraw(keys):
            self._settle(Completion(key, "", "abort", Usage()))
        self._feed.cancel(keys.__contains__)

    def close(self) -> None:
        """End the engines; what is not answered by then never is. May be called twice."""
        self._closing = True
        self._feed.halt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_SECONDS)
        self._driver.stop()
        self._fail(EngineError("the engine was closed"))
        if self._temporary is not None:
            self._temporary.cleanup()

    def _start(self) -> None:
        if self._thread is None:
            self._driver.need()
            self._thread = threading.Thread(target=self._drive, name="llmbatch-live", daemon=True)
            self._thread.start()

    def _drive(self) -> None:
        try:
            for outcomes in self._driver.stream(self._feed):
                for outcome in outcomes:
                    self._settle(outcome)
                if self._unwanted:  # what could not be taken back where it waited is ended once an engine has it
                    self._feed.cancel(self._unwanted.__contains__)
                if self._closing:
                    self._driver.abort()
                    return
        except LlmbatchError as error:
            self._fail(error)
            self._driver.stop()  # whoever waits for it to be up is told
        except BaseException as error:
            self._fail(EngineError(f"the engine's thread failed: {error!r}"))
            self._driver.stop()
            raise

    def _settle(self, outcome: Outcome) -> None:
        with self._state:
            future = self._futures.pop(outcome.key)
            self._unwanted.discard(outcome.key)
        if future.set_running_or_notify_cancel():  # nobody waits for one that was cancelled
            future.set_result(outcome)

    def _fail(self, error: BaseException) -> None:
        """Whoever waits is told, and whoever asks later."""
        with self._state:
            self._broken = self._broken or error
            waiting, self._futures = list(self._futures.values()), {}
            self._unwanted.clear()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


__all__ = ["LiveEngine"]
