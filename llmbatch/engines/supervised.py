"""An engine that may die in, one that does not out: restarts with back-off, and the search for a request that kills it.

After a death the requests in flight go again, as they are: a death is not an attempt. Requests that were there at two deaths
are suspects and run in groups with nothing else in flight, halved at each further death, so that with n suspects the one that
kills is found after about log2(n) deaths and the others are answered on the way. A request that is alone at its third death
is refused, once the engine has answered a harmless one: an engine that dies of everything is broken, and no row is to blame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence

from llmbatch.core.errors import EngineDied, EngineError, JobError, NotServed, OutOfMemory
from llmbatch.core.events import EngineReady, Note, Replica, Watcher
from llmbatch.core.types import (
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.base import (
    NO_DRAFTS,
    CanBeKilled,
    Drafts,
    Engine,
    EngineInfo,
    Speculates,
    Speculation,
    idle_share,
)
from llmbatch.engines.deaths import DEATHS_TO_SUSPECT, DeathsOf
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import Smaller, kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.speculation import Acceptance, Guessing, is_drawn

_BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)  # before a restart, by how many deaths came without an answer between
_DEATHS_TO_REFUSE = 3
_PATIENCE_SECONDS = 0.02  # between two looks while nothing has needed the engine yet
_PAUSE_SECONDS = 0.2
_SEARCH_DEATHS = 12  # a search among 4096 suspects may take so many deaths without an answer
_PROBE_KEY = RequestKey(-1)
_PROBE_SAMPLING = Sampling((("max_tokens", 1), ("temperature", 0.0)))


Make = Callable[[EngineSettings], Engine]


class Cancelled(Exception):
    """The engine will not come up, because the run was ended."""


class Supervised:
    """Builds, drives and rebuilds one engine: a ``Driver``. ``make`` gives a new, not yet started engine for some settings.

    Several that answer one feed are given the same ``deaths_of``. An engine that guesses tokens ahead, and too few of them right,
    is given nothing more, and once it has answered what it has is made anew without.
    """

    def __init__(
        self,
        make: Make,
        settings: EngineSettings,
        tell: Watcher,
        deaths_of: DeathsOf | None = None,
    ) -> None:
        self._make = make
        self._settings = settings
        self._tell = tell
        self._engine = make(settings)
        self._deaths_of = deaths_of or DeathsOf()
        speculates = kind_of(settings.name).unspeculating(settings) is not None
        self._guessing = Guessing(Acceptance(settings.least_acceptance)) if speculates else None
        self._deaths_since_answer = 0
        self._harmless: Request | None = None  # the last one that was answered
        self._past = Usage()
        self._probed = Usage()
        self._past_busy = 0.0
        self._past_ready = 0.0
        self._ready_at: float | None = None
        self._needed = threading.Event()
        self._ready = threading.Event()
        self.deaths = 0
        self.starting = False
        self.info: EngineInfo | None = None
        self.start_seconds: float | None = None  # of the first start

    def need(self) -> None:
        """There is work for the engine; the first time, ``stream`` starts it. May be called from any thread."""
        if not self._needed.is_set():
            self._needed.set()

    @property
    def needed(self) -> bool:
        """Whether there was work for the engine."""
        return self._needed.is_set()

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
        self.starting = True
        try:
            return self._start()
        finally:
            self.starting = False

    def _start(self) -> EngineInfo:
        began = time.monotonic()
        while True:
            try:
                info = self._engine.start()
            except OutOfMemory as error:
                self._engine.stop()
                smaller = self._smaller()
                if smaller is None:
                    raise
                self._tell(Note("warning", f"{error}. Trying again with {smaller.said}"))
                self._rebuild(smaller.settings)
            else:
                self._ready_at = time.monotonic()
                if self.start_seconds is None:
                    self.start_seconds = self._ready_at - began
                self.info = info
                self._ready.set()
                self._tell(EngineReady(self._ready_at - began, _describe(info)))
                return info

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        """As the engine's own; may be called from another thread and before ``start``."""
        return self._engine.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        """As the engine's own, through deaths. Starts the engine when it is first needed; marks what is answered as done.

        Raises ``EngineError`` when it died more often than the settings allow without a reason found.
        """
        while self.info is None:
            needed = self._needed.wait(_PATIENCE_SECONDS)
            yield []  # the caller may find, before a model is loaded, that the run is to stop
            if feed.finished:
                return
            if needed:
                self.start()
        while True:
            try:
                for outcomes in self._engine.stream(feed):
                    if outcomes:
                        requests = feed.done_all([outcome.key for outcome in outcomes])
                        self._see_life(requests, outcomes)
                        self._deaths_of.acquit(outcomes)
                        if self._guessing is not None:
                            self._see_what_was_guessed(self._guessing, requests, feed)
                    yield outcomes
                if feed.paused and not feed.halted:
                    yield from self._go_on_without_guessing(feed)
                elif feed.finished:
                    return
            except (EngineDied, NotServed) as error:
                death = self._as_death(error)
                accused = self._after_death(death, feed)
                yield from self._restart(death, feed)
                if feed.halted:  # the run is being stopped: what was in flight is owed again, and needs no engine now
                    return
                if accused is not None:
                    died_without_it = yield from self._prove(feed)
                    if died_without_it and not feed.halted:
                        self._tell(
                            Note(
                                "warning",
                                f"it died without the row with index {accused.key.index} too, which goes again",
                            )
                        )
                        feed.push_alone(feed.recall())
                    elif not feed.halted:
                        feed.done(accused.key)
                        self._deaths_of.acquit([accused])
                        yield [accused]

    def _see_life(self, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
        """Remember that the engine answers. What was ended on request came from here, and may do so while no server is there."""
        for request, outcome in zip(reversed(requests), reversed(outcomes), strict=True):
            if isinstance(outcome, Completion) and outcome.finish_reason != "abort":
                self._harmless, self._deaths_since_answer = request, 0
                return
            if isinstance(outcome, Refusal):
                self._deaths_since_answer = 0

    def _as_death(self, error: EngineDied | NotServed) -> EngineDied:
        """Raises it where a restart will not help: nothing was answered since the run began, so it is not a matter of time."""
        if isinstance(error, EngineDied):
            return error
        if self._harmless is None:
            raise error
        return EngineDied(str(error), suspect=False)

    def abort(self) -> None:
        """Give up what is in flight, without outcomes."""
        self._engine.abort()

    def stop(self) -> None:
        """End the engine; nothing of it is left. May be called twice."""
        self._account()
        self._ready.set()
        self._engine.stop()

    def kill(self) -> None:
        """End an engine that is being started, where that can be done; its start then fails. May be called from another thread."""
        if isinstance(self._engine, CanBeKilled):
            self._engine.kill()

    def counts(self) -> Usage:
        """Tokens by the engines' own count, over all restarts."""
        total = self._past + self._engine.counts() if self._ready_at is not None else self._past
        return total - self._probed

    @property
    def is_up(self) -> bool:
        """Whether an engine is up, as far as that is known."""
        return self._ready_at is not None

    @property
    def busy_seconds(self) -> float:
        """Seconds in which an engine had work to do, over all restarts."""
        return self._past_busy + (self._engine.busy() if self._ready_at is not None else 0.0)

    @property
    def ready_seconds(self) -> float:
        """Seconds in which an engine was up, over all restarts."""
        return self._past_ready + (time.monotonic() - self._ready_at if self._ready_at is not None else 0.0)

    def replicas(self) -> tuple[Replica, ...]:
        """There is one alone."""
        return ()

    def idle_share(self) -> float:
        """Share of the time that an engine was up in which it had nothing to do, between 0 and 1."""
        return idle_share(self)

    def speculation(self) -> Speculation | None:
        """As a ``Driver``."""
        guessing = self._guessing
        if guessing is None:
            return None
        drafts, at_fall, fell = guessing.past + self._drafts(), guessing.at_fall, guessing.fell_after
        fallen = int(fell is not None)
        return Speculation(
            drafts, guessing.acceptance.least, 1, fallen, fell, None if at_fall is None else at_fall.share
        )

    def _drafts(self) -> Drafts:
        """Of the engine that is up."""
        engine = self._engine
        return engine.drafts() if self._ready_at is not None and isinstance(engine, Speculates) else NO_DRAFTS

    def _see_what_was_guessed(self, guessing: Guessing, answered: Sequence[Request], feed: Feed) -> None:
        """Give an engine nothing more that guesses badly, unless a death is being looked into."""
        guessing.answered += len(answered)
        guessing.drawn = guessing.drawn or any(map(is_drawn, answered))
        if guessing.over or self._deaths_of.searching or not guessing.acceptance.is_too_low(drafts := self._drafts()):
            return
        guessing.over = True
        least = guessing.acceptance.least
        seen = f"of the tokens that speculation guessed lately less than {least:.0%} were right, so it costs more than it spares"
        if guessing.drawn:  # with the same seed they would come out otherwise after an interruption
            self._tell(Note("warning", f"{seen}; it goes on, as answers are drawn with seeds, which it has a part in"))
            return
        guessing.at_fall, guessing.fell_after = guessing.past + drafts, guessing.answered
        self._tell(Note("warning", f"{seen}: the engine is restarted without it, and goes on from here"))
        self._settings = kind_of(self._settings.name).unspeculating(self._settings) or self._settings
        feed.pause()

    def _go_on_without_guessing(self, feed: Feed) -> Iterator[list[Outcome]]:
        """It has answered all that it had: make it anew with the settings that are set by now."""
        self._account()
        self._engine.stop()
        yield []
        self._rebuild(self._settings)
        feed.resume()
        try:
            self.start()
        except EngineError as error:
            self._deaths_since_answer += 1
            yield from self._restart(error, feed)

    def _after_death(self, death: EngineDied, feed: Feed) -> Refusal | None:
        """Decide what the requests in flight do next; returns the refusal of one that was found to kill the engine."""
        self.deaths += 1
        self._deaths_since_answer += 1
        lost = feed.recall()
        feed.resume()  # whatever it was to be made anew for, now it is
        if death.suspect:
            self._deaths_of.add(lost)
        suspects = [r for r in lost if self._deaths_of.of(r) >= DEATHS_TO_SUSPECT]
        rest = [r for r in lost if self._deaths_of.of(r) < DEATHS_TO_SUSPECT]
        if death.suspect and len(lost) == 1 and self._deaths_of.of(lost[0]) >= _DEATHS_TO_REFUSE:
            feed.keep(lost[0])
            return self._accuse(lost[0], death)
        feed.push(rest, first=True)
        middle = (len(suspects) + 1) // 2 if death.suspect else len(suspects)
        for group in (suspects[middle:], suspects[:middle]):
            if group:
                feed.push_alone(group)
        apart = f"; {len(suspects)} of them saw two deaths and run apart, to find one that kills it" if suspects else ""
        self._tell(Note("warning", f"{death}. {len(lost)} requests were in flight and go again{apart}"))
        return None

    def _accuse(self, request: Request, death: EngineDied) -> Refusal:
        # without the number of deaths and the last one's words: a record is the same in every run
        message = (
            "the engine died again and again with this row in flight, the last time with this row alone; see engine.log"
        )
        self._tell(Note("error", f"the row with index {request.key.index} is set apart as failed: {message}: {death}"))
        return Refusal(request.key, Failure(FailureKind.ENGINE_DIED, message))

    def _prove(self, feed: Feed) -> Generator[list[Outcome], None, bool]:
        """See the engine answer something harmless, through as many deaths as the settings allow; yields nothing but pauses.

        Returns whether it died of that too: then an outage may have been what it died of before.
        """
        died = False
        while not feed.halted:
            probe = Feed()
            probe.push(self._probe())
            probe.close()
            before = self._engine.counts()
            try:
                for outcomes in self._engine.stream(probe):
                    for outcome in outcomes:
                        probe.done(outcome.key)
            except EngineDied as death:
                self.deaths += 1
                self._deaths_since_answer += 1
                died = True
                yield from self._restart(death, feed)
            else:
                self._probed = self._probed + (self._engine.counts() - before)
                break
        return died

    def _probe(self) -> list[Request]:
        if self._harmless is not None:
            known = self._harmless
            return [Request(_PROBE_KEY, known.prompt, _PROBE_SAMPLING, lora=known.lora, token_ids=known.token_ids)]
        prompt = Prompt(text="1")
        encoded = self._engine.tokenize([prompt])
        ids = None if encoded is None else encoded[0]
        return [] if isinstance(ids, Failure) else [Request(_PROBE_KEY, prompt, _PROBE_SAMPLING, token_ids=ids)]

    def _restart(self, death: EngineError | JobError, feed: Feed) -> Iterator[list[Outcome]]:
        """Make the engine anew, after a pause in which the caller can look after its clocks; not if the feed is halted.

        A start that fails counts as one more death. Raises ``EngineError`` where there were too many, and ``JobError`` where
        nothing was answered since the run began: once the job has worked, what it finds wrong with it may pass.
        """
        self._account()
        self._engine.stop()
        settings = self._settings
        if isinstance(death.__cause__, OutOfMemory | MemoryError) and (smaller := self._smaller()) is not None:
            settings = smaller.settings
            self._tell(Note("warning", f"the engine ran out of memory; it is restarted with {smaller.said}"))
        while True:
            searching = self._deaths_of.searching
            if self._deaths_since_answer > self._settings.restarts + _SEARCH_DEATHS * searching:
                raise EngineError(
                    f"the engine died {self._deaths_since_answer} times without an answer between: {death}. "
                    "Finished rows are safe; see engine.log in the run folder. The same command goes on from here"
                ) from death
            explained = searching and isinstance(death, EngineDied)
            yield from _pause(0.0 if explained else _backoff(self._deaths_since_answer), feed)
            if feed.halted:
                return
            self._rebuild(settings)
            try:
                self.start()
                return
            except (EngineError, JobError) as error:
                if isinstance(error, JobError) and self._harmless is None:
                    raise
                self._engine.stop()
                self._deaths_since_answer += 1
                self._tell(Note("warning", f"the engine could not be restarted: {error}"))
                settings, death = self._settings, error

    def _rebuild(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._engine = self._make(settings)

    def _account(self) -> None:
        """Take the counts of an engine that ends over, once."""
        if self._ready_at is not None:
            self._past = self._past + self._engine.counts()
            self._past_busy += self._engine.busy()
            if self._guessing is not None:
                self._guessing.past += self._drafts()
                self._guessing.acceptance.begin()
            self._past_ready += time.monotonic() - self._ready_at
            self._ready_at = None

    def _smaller(self) -> Smaller | None:
        """Settings with which it may have memory enough; ``None`` at the bottom."""
        return kind_of(self._settings.name).smaller(self._settings, self.info)


def _backoff(deaths: int) -> float:
    return _BACKOFF_SECONDS[min(deaths, len(_BACKOFF_SECONDS)) - 1] if deaths else 0.0


def _pause(seconds: float, feed: Feed) -> Iterator[list[Outcome]]:
    """Wait, and yield now and then, but at least once; over at once when the feed is halted."""
    end = time.monotonic() + seconds
    yield []
    while not feed.halted and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _PAUSE_SECONDS))
        yield []


def _describe(info: EngineInfo) -> str:
    cache = f", KV cache for {info.kv_cache_tokens:,} tokens" if info.kv_cache_tokens else ""
    context = "" if info.context_length is None else f"context {info.context_length:,} tokens, "
    return (
        f"{info.name} {info.version} with {info.model} on {info.device}: {context}"
        f"{info.max_num_seqs} sequences at a time{cache}"
    )
