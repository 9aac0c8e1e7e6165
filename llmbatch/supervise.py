"""An engine that may die in, one that does not out: restarts with back-off, and the search for a request that kills it.

After a death the requests in flight go again, as they are: a death is not an attempt. Requests that were there at two deaths
are suspects and run in groups with nothing else in flight, halved at each further death, so that with n suspects the one that
kills is found after about log2(n) deaths and the others are answered on the way. A request that is alone at its third death
is refused; the run goes on without it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from llmbatch.engines import Engine, EngineInfo, EngineSettings
from llmbatch.errors import EngineDied, EngineError, OutOfMemory
from llmbatch.events import EngineReady, Note, Watcher
from llmbatch.feed import Feed
from llmbatch.types import Failure, FailureKind, Outcome, Prompt, Refusal, Request, RequestKey, Usage

_BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)
_DEATHS_TO_SUSPECT = 2
_DEATHS_TO_REFUSE = 3
_PATIENCE_SECONDS = 0.02  # between two looks while nothing has needed the engine yet
_SEARCH_DEATHS = 12  # a search among 4096 suspects may take so many deaths without an answer
_MIN_SEQS = 8


class Cancelled(Exception):
    """The engine will not come up, because the run was ended."""


class SupervisedEngine:
    """Builds, drives and rebuilds one engine. ``make`` gives a new, not yet started engine for some settings."""

    def __init__(self, make: Callable[[EngineSettings], Engine], settings: EngineSettings, tell: Watcher) -> None:
        self._make = make
        self._settings = settings
        self._tell = tell
        self._engine = make(settings)
        self._deaths_of: Counter[RequestKey] = Counter()
        self._deaths_since_answer = 0
        self._guilty: list[
            Refusal
        ] = []  # refused once the engine has shown on another request that it lives without them
        self._past = Usage()
        self._past_busy = 0.0
        self._past_ready = 0.0
        self._ready_at: float | None = None
        self._needed = threading.Event()
        self._ready = threading.Event()
        self.deaths = 0
        self.info: EngineInfo | None = None
        self.start_seconds: float | None = None  # of the first start

    def need(self) -> None:
        """There is work for the engine; the first time, ``stream`` starts it. May be called from any thread."""
        if not self._needed.is_set():
            self._needed.set()

    def wait_ready(self) -> EngineInfo:
        """Block until the engine is up. Raises ``Cancelled`` when it was stopped instead. May be called from any thread."""
        self.need()
        self._ready.wait()
        if self.info is None:
            raise Cancelled
        return self.info

    def start(self) -> EngineInfo:
        """Start the engine; trouble with memory halves what runs at a time and tries again, a few times.

        Raises ``EngineError`` where it cannot be started.
        """
        began = time.monotonic()
        while True:
            try:
                info = self._engine.start()
            except OutOfMemory as error:
                self._engine.stop()
                lower = self._lowered()
                if lower is None:
                    raise
                self._tell(Note("warning", f"{error}. Trying again with max_num_seqs={_seqs(lower)}"))
                self._rebuild(lower)
            else:
                self._ready_at = time.monotonic()
                if self.start_seconds is None:
                    self.start_seconds = self._ready_at - began
                self.info = info
                self._ready.set()
                self._tell(EngineReady(self._ready_at - began, _describe(info)))
                return info

    def tokenize(self, prompts: list[Prompt]) -> list[list[int] | Failure]:
        """As the engine's own; may be called from another thread and before ``start``."""
        return self._engine.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        """As the engine's own, through deaths. Starts the engine when it is first needed; marks what is answered as done.

        Raises ``EngineError`` when it died more often than the settings allow without a reason found.
        """
        while self.info is None:
            if self._needed.is_set():
                self.start()
            elif feed.finished:
                return
            else:
                self._needed.wait(_PATIENCE_SECONDS)
                yield []
        while True:
            try:
                for outcomes in self._engine.stream(feed):
                    for outcome in outcomes:
                        feed.done(outcome.key)
                    if outcomes:
                        self._deaths_since_answer = 0
                    if self._guilty and (outcomes or not (feed.in_flight or feed.waiting)):
                        outcomes = outcomes + self._pop_guilty()
                    yield outcomes
            except EngineDied as death:
                self._after_death(death, feed)
                self._restart(death)
            else:
                if self._guilty:
                    yield list(self._pop_guilty())
                if feed.finished:
                    return

    def abort(self) -> None:
        """Give up what is in flight, without outcomes."""
        self._engine.abort()

    def stop(self) -> None:
        """End the engine; nothing of it is left. May be called twice."""
        self._account()
        self._ready.set()
        self._engine.stop()

    def counts(self) -> Usage:
        """Tokens by the engines' own count, over all restarts."""
        return self._past + self._engine.counts() if self._ready_at is not None else self._past

    @property
    def busy_seconds(self) -> float:
        """Seconds in which an engine had work to do, over all restarts."""
        return self._past_busy + (self._engine.busy() if self._ready_at is not None else 0.0)

    def idle_share(self) -> float:
        """Share of the time that an engine was ready in which it had nothing to do, between 0 and 1."""
        ready = self._past_ready + (time.monotonic() - self._ready_at if self._ready_at is not None else 0.0)
        return max(0.0, 1 - self.busy_seconds / ready) if ready > 0 else 0.0

    def _after_death(self, death: EngineDied, feed: Feed) -> None:
        """Decide what the requests in flight do next."""
        self.deaths += 1
        self._deaths_since_answer += 1
        lost = feed.recall()
        for request in lost:
            self._deaths_of[request.key] += 1
        suspects = [r for r in lost if self._deaths_of[r.key] >= _DEATHS_TO_SUSPECT]
        rest = [r for r in lost if self._deaths_of[r.key] < _DEATHS_TO_SUSPECT]
        if len(lost) == 1 and self._deaths_of[lost[0].key] >= _DEATHS_TO_REFUSE:
            self._accuse(lost[0], death)
            return
        feed.push(rest, first=True)
        middle = (len(suspects) + 1) // 2
        for group in (suspects[middle:], suspects[:middle]):
            if group:
                feed.push_alone(group)
        apart = f"; {len(suspects)} of them saw two deaths and run apart, to find one that kills it" if suspects else ""
        self._tell(Note("warning", f"{death}. {len(lost)} requests were in flight and go again{apart}"))

    def _accuse(self, request: Request, death: EngineDied) -> None:
        deaths = self._deaths_of[request.key]
        message = f"the engine died {deaths} times with this row in flight, the last time with this row alone: {death}"
        self._tell(Note("error", f"the row with index {request.key.index} is set apart as failed: {message}"))
        self._guilty.append(Refusal(request.key, Failure(FailureKind.ENGINE_DIED, message)))

    def _pop_guilty(self) -> list[Outcome]:
        guilty: list[Outcome] = list(self._guilty)
        self._guilty.clear()
        return guilty

    def _restart(self, death: EngineDied) -> None:
        self._account()
        self._engine.stop()
        if self._deaths_since_answer > self._settings.restarts + _SEARCH_DEATHS * self._searching():
            raise EngineError(
                f"the engine died {self._deaths_since_answer} times without an answer between: {death}. "
                "Finished rows are safe; see engine.log in the run folder. The same command goes on from here"
            ) from death
        settings = self._settings
        if isinstance(death.__cause__, OutOfMemory | MemoryError) and (lower := self._lowered()) is not None:
            settings = lower
            self._tell(
                Note("warning", f"the engine ran out of memory; it is restarted with max_num_seqs={_seqs(lower)}")
            )
        time.sleep(_BACKOFF_SECONDS[min(self._deaths_since_answer, len(_BACKOFF_SECONDS) - 1)])
        self._rebuild(settings)
        self.start()

    def _searching(self) -> bool:
        return any(deaths >= _DEATHS_TO_SUSPECT for deaths in self._deaths_of.values())

    def _rebuild(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._engine = self._make(settings)

    def _account(self) -> None:
        """Take the counts of an engine that ends over, once."""
        if self._ready_at is not None:
            self._past = self._past + self._engine.counts()
            self._past_busy += self._engine.busy()
            self._past_ready += time.monotonic() - self._ready_at
            self._ready_at = None

    def _lowered(self) -> EngineSettings | None:
        """Settings with half as many sequences at a time and half the batched tokens; ``None`` at the bottom."""
        args = dict(self._settings.args)
        seqs = int(
            args.get("max_num_seqs") or (self.info.max_num_seqs if self.info else self._settings.in_flight or 256)
        )
        if seqs <= _MIN_SEQS:
            return None
        changes: dict[str, object] = {}
        if self._settings.name == "scripted":
            changes["in_flight"] = seqs // 2
        else:
            args["max_num_seqs"] = seqs // 2
            if batched := args.get("max_num_batched_tokens"):
                args["max_num_batched_tokens"] = max(int(batched) // 2, 512)
            changes["args"] = args
        return self._settings.model_copy(update=changes)


def _describe(info: EngineInfo) -> str:
    cache = f", KV cache for {info.kv_cache_tokens:,} tokens" if info.kv_cache_tokens else ""
    return (
        f"{info.name} {info.version} with {info.model} on {info.device}: context {info.context_length:,} tokens, "
        f"{info.max_num_seqs} sequences at a time{cache}"
    )


def _seqs(settings: EngineSettings) -> object:
    return settings.args.get("max_num_seqs") or settings.in_flight
