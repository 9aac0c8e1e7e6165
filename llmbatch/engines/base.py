"""The contract of an engine: a feed of requests in, a stream of outcomes out, each request answered once, as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from llmbatch.core.events import Replica, Watcher
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a started engine is. Lengths are in tokens.

    ``context_length`` is ``None`` where only a server knows it. ``can`` holds what the engine is able to do: ``score`` a given
    text, hold an answer to a ``constraint``, ``continue`` a partial answer, apply a ``lora`` adapter, take token ``ids``, show a
    model ``images``, ``stream`` an answer as it comes, ``cancel`` a request in flight. Of one that gives numbers it holds the
    ``PoolingTask``s of its model instead, and ``ids``, ``lora``, ``cancel`` and ``activation``: that it can be told what the model
    does to its numbers at the end.
    """

    name: str
    version: str
    model: str
    context_length: int | None
    max_num_seqs: int
    kv_cache_tokens: int | None = None
    block_size: int | None = None
    max_num_batched_tokens: int | None = None
    in_flight: int | None = None  # requests that it takes at a time; None: twice ``max_num_seqs``
    in_flight_tokens: int | None = None  # and their prompt tokens; None: any
    prefix_caching: bool = True
    can: frozenset[str] = frozenset()
    device: str = "none"
    engines: int = 1  # how many there are of it
    pids: tuple[int, ...] = ()  # processes of its own that must not outlive the run
    details: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(
        default_factory=dict
    )  # arguments by name, as they came out, that results depend on


class Engine(Protocol):
    """The contract. ``stream`` is driven by one thread; ``tokenize`` may be called from another at the same time."""

    def start(self) -> EngineInfo:
        """Load the model. Raises ``EngineError``, or ``OutOfMemory``; ``JobError`` for an argument it does not know."""

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """Say before ``start`` which constraints requests will have, as far as that is known by then."""

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        """The token ids that the model gets for each prompt, prefill included, in order; works before ``start``.

        Of a pair they are ``PairIds``. ``None`` where only a server knows them: then requests come without, and what does not fit
        is a ``Refusal``.
        """

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        """Pull from the feed until it is finished; yield after every step what finished in it, often nothing.

        Each request gets one outcome, once; the caller marks it ``done`` in the feed. A step lasts at most about a second
        (while the feed is empty the engine waits in ``feed.wait``), so that the caller can look after its clocks between
        steps. Raises ``EngineDied``, also where nothing moves for ``EngineSettings.timeout`` seconds: what is in flight
        got no answer, and the engine must be stopped and made anew.
        """

    def abort(self) -> None:
        """Give up all requests in flight without an answer; ``stream`` may then be called again."""

    def stop(self) -> None:
        """End it: no process, thread or memory of its own is left. May be called at any time and twice."""

    def counts(self) -> Usage:
        """Tokens of all requests answered since ``start``, by the engine's own count."""

    def busy(self) -> float:
        """Seconds since ``start`` in which the engine had work to do."""


@runtime_checkable
class Speculates(Protocol):
    """An engine that may guess tokens ahead, where its settings say so."""

    def drafts(self) -> Drafts:
        """What it guessed since its start, by its own count; a second late at most, and none where it does not speculate."""


@runtime_checkable
class Forgets(Protocol):
    """An engine with a prefix cache that can be emptied."""

    def forget(self) -> None:
        """Empty it. Only while nothing is in flight."""


@runtime_checkable
class CanBeKilled(Protocol):
    """An engine that lives elsewhere, and need not be asked to end."""

    def kill(self) -> None:
        """End it at once. May be called from any thread, also while it starts: then ``start`` raises ``EngineError``."""


class Driver(Protocol):
    """What the loop of a run drives: engines, one or several, through their deaths."""

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is, once one has been up. Of several it is what one of them is, with the processes of all."""

    @property
    def needed(self) -> bool:
        """Whether there was work for an engine."""

    @property
    def starting(self) -> bool:
        """Whether nothing can be answered yet, because a model is being loaded."""

    @property
    def start_seconds(self) -> float | None:
        """Of the first start."""

    @property
    def deaths(self) -> int:
        """How often an engine died."""

    @property
    def busy_seconds(self) -> float:
        """Seconds in which an engine had work to do, over all restarts; of several engines their mean."""

    @property
    def ready_seconds(self) -> float:
        """Seconds in which an engine was up, over all restarts; of several engines their mean."""

    def need(self) -> None:
        """There is work for the engine; the first time, ``stream`` starts it. May be called from any thread."""

    def wait_ready(self) -> EngineInfo:
        """Block until an engine is up. Raises ``Cancelled`` when it was stopped instead. May be called from any thread."""

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        """As the engine's own; may be called from any thread and before it is started."""

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        """As the engine's own, through deaths. Starts what is needed; marks what is answered as done.

        Raises ``EngineError`` when engines died more often than the settings allow without a reason found.
        """

    def abort(self) -> None:
        """Give up what is in flight, without outcomes."""

    def stop(self) -> None:
        """End the engines; nothing of them is left. May be called twice."""

    def counts(self) -> Usage:
        """Tokens by the engines' own count, over all restarts."""

    def replicas(self) -> tuple[Replica, ...]:
        """Where each of several engines stands; empty where there is one."""

    def idle_share(self) -> float:
        """Share of the time that engines were up in which they had nothing to do, between 0 and 1."""

    def speculation(self) -> Speculation | None:
        """What engines guessed ahead, over all restarts; None where none does, or where that is not this run's alone."""


class SharedDriver(Driver, Protocol):
    """What several runs may have of one engine at a time: ``stop`` and ``abort`` are this run's alone."""

    def hear(self, tell: Watcher) -> None:
        """Who is told, in the thread that drives it, when the engine is up: before anything is answered."""


class Speculation(NamedTuple):
    """What engines guessed ahead; ``fell_back``: how many of them go on without, as less than ``least`` was right."""

    drafts: Drafts
    least: float
    engines: int = 1
    fell_back: int = 0
    after_requests: int | None = None  # that had been answered when the first of them fell back
    share: float | None = None  # of the tokens guessed before that, what was right


def idle_share(driver: Driver) -> float:
    """Share of the time that its engines were up in which they had nothing to do, between 0 and 1."""
    ready = driver.ready_seconds
    return max(0.0, 1 - driver.busy_seconds / ready) if ready > 0 else 0.0


EngineFactory = Callable[[str, EngineSettings, ChatSettings, Path], Engine]
"""(model, engine settings, chat settings, path of the engine's log file) -> an engine that is not yet started."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """What an engine guessed ahead (speculation) since its start: how often, how many tokens, and how many of them were right."""

    drafts: int = 0
    tokens: int = 0
    accepted: int = 0

    def __add__(self, other: Drafts) -> Drafts:
        return Drafts(self.drafts + other.drafts, self.tokens + other.tokens, self.accepted + other.accepted)

    def __sub__(self, before: Drafts) -> Drafts:
        return Drafts(self.drafts - before.drafts, self.tokens - before.tokens, self.accepted - before.accepted)

    @property
    def share(self) -> float | None:
        """Of the guessed tokens those that were right; None where there are none."""
        return self.accepted / self.tokens if self.tokens else None


NO_DRAFTS = Drafts()


__all__ = [
    "NO_DRAFTS", "CanBeKilled", "Drafts", "Driver", "Engine", "EngineFactory", "EngineInfo", "Forgets", "SharedDriver",
    "Speculates", "Speculation", "idle_share",
]  # fmt: skip
