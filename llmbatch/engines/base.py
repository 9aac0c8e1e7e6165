"""The contract of an engine: a feed of requests in, a stream of outcomes out, each request answered once, as it finishes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llmbatch.core.errors import JobError
from llmbatch.core.events import Replica, Watcher
from llmbatch.core.settings import Counts, IsPath, is_there
from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, Outcome, Pooling, Prompt, Usage
from llmbatch.engines import DEFAULT_ENGINE, ENGINES
from llmbatch.engines.devices import Machine, Place
from llmbatch.engines.feed import Feed
from llmbatch.images.base import ImageSettings
from llmbatch.model.hub import see_model
from llmbatch.model.tokenizer import ChatSettings

_MOST_REPLICAS = 256
_CLUSTER = re.compile(r"ray://[^\s/]+:\d+")


def _count_or_auto(value: Any) -> Any:
    """``auto``, or a whole number of engines."""
    if isinstance(value, str):
        text = value.strip().lower()
        value = int(text) if text.isdecimal() and text.isascii() else text
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_REPLICAS):
        return value
    raise ValueError(f"is auto, or a number of engines from 1 to {_MOST_REPLICAS}")


def _cluster(value: Any) -> Any:
    """``ray``, ``ray://HOST:PORT`` or ``auto``."""
    if value is None or value in ("ray", "auto") or (isinstance(value, str) and _CLUSTER.fullmatch(value)):
        return value
    raise ValueError("is ray, for the Ray cluster that this machine belongs to, ray://HOST:PORT or auto")


class EngineSettings(BaseModel):
    """How the engine is built and driven. ``args`` go to the engine itself: for vLLM, its engine arguments by name.

    This is a job's section, for any engine; an engine's own class (``EngineKind.settings``) says what of it that engine takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(DEFAULT_ENGINE, description=" or ".join(ENGINES))
    args: dict[str, Any] = Field(
        default_factory=dict, description="engine arguments, e.g. tensor_parallel_size, quantization"
    )
    in_process: Annotated[bool | None, Counts.NOTHING] = Field(
        None, description="run the engine core in this process; by default only on a CPU, where it starts faster"
    )
    in_flight: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="requests handed to the engine; by default twice its max_num_seqs"
    )
    in_flight_tokens: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="prompt tokens handed to the engine at a time"
    )
    timeout: Annotated[float, Counts.NOTHING] = Field(
        600.0, gt=0, description="seconds without any progress after which the engine counts as hung"
    )
    replicas: Annotated[int | Literal["auto"], Counts.NOTHING, BeforeValidator(_count_or_auto)] = Field(
        1,
        description="engines that answer the run's requests side by side, each with GPUs of its own; auto: as many as the visible "
        "GPUs are enough for",
    )
    cluster: Annotated[str | None, Counts.NOTHING, BeforeValidator(_cluster)] = Field(
        None,
        description="engines on the machines of a Ray cluster, as many as it has room for unless replicas says how many: ray, the "
        "one that this machine belongs to; ray://HOST:PORT; auto: as ray, and where there is none this machine's GPUs",
    )
    hosted: Annotated[bool | None, Counts.NOTHING] = Field(
        None, description="each engine in another process; by default where there are several of one that needs that"
    )
    least_acceptance: Annotated[float, Counts.NOTHING] = Field(
        0.1,
        ge=0,
        le=1,
        description="speculation ends when less than this share of the guessed tokens is right; 0: never. The tuner measures it",
    )
    restarts: Annotated[int, Counts.NOTHING] = Field(
        5, ge=0, description="engine deaths survived without an answer between them, before the run stops"
    )
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser that splits the thinking part off")
    lora: Annotated[dict[str, str], IsPath(is_there, each=True)] = Field(
        default_factory=dict, description="LoRA adapters: name to path"
    )
    script: Annotated[str | None, IsPath(), Counts.CONTENT] = Field(
        None, description="scripted engine: path of its script (YAML)"
    )
    trust_remote_code: bool = False
    images: ImageSettings = Field(ImageSettings(), description="how the images of prompts are read")

    @model_validator(mode="before")
    @classmethod
    def _all_of_a_cluster(cls, data: Any) -> Any:
        """In a cluster there are as many engines as there is room for, unless it is said how many."""
        if isinstance(data, dict) and data.get("cluster") is not None and "replicas" not in data:
            return {**data, "replicas": "auto"}
        return data

    @property
    def engines(self) -> int:
        """How many engines; 1 for ``auto`` as long as it is not ``resolved``."""
        return 1 if self.replicas == "auto" else self.replicas


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a started engine is. Lengths are in tokens.

    ``context_length`` is ``None`` where only a server knows it. ``can`` holds what the engine is able to do: ``score`` a given
    text, hold an answer to a ``constraint``, ``continue`` a partial answer, apply a ``lora`` adapter, take token ``ids``, show a
    model ``images``, ``stream`` an answer as it comes, ``cancel`` a request in flight. Of one that gives numbers it holds the
    ``PoolingTask``s of its model instead, and ``ids``, ``lora`` and ``cancel``.
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


class Smaller(NamedTuple):
    """Settings that need less memory, and what they change, in words."""

    settings: EngineSettings
    said: str


class Around(NamedTuple):
    """What candidates are chosen by, besides the settings: the engine as these make it, the machine, and what the job names."""

    info: EngineInfo
    machine: Machine = Machine()
    model: str = ""
    draft: str | None = None  # a small model that the job's author names, to guess the next tokens


class Candidate(NamedTuple):
    """Settings that may be faster than the ones given: a name for a person, and what of ``EngineSettings`` they change.

    ``kind`` is what it is a case of. ``exact``: what it changes leaves the answers as they are. ``why_not``: it cannot be tried
    here, for this reason, and changes nothing.
    """

    name: str
    changes: Mapping[str, Any]
    kind: str = "batch size"
    exact: bool = True
    why_not: str | None = None


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


class ModelFacts(NamedTuple):
    """What is known of a model that is not loaded."""

    model: str
    context_length: int  # in tokens, by its own config; 0: only a server knows it


class TokenizerSource(NamedTuple):
    """Where the tokenizer comes from: a name or folder where it is not the model's own, and a revision on the hub.

    ``needed`` is false where the engine does without, and the model may be one whose tokenizer nobody has.
    """

    name: str | None = None
    revision: str | None = None
    needed: bool = True


class NamedModel(NamedTuple):
    """A model or adapter that settings name: a local place, or a name on the hub."""

    setting: str  # that names it, by the keys of a job file
    place: str
    pin: str  # the setting that would pin one on the hub to a commit
    revision: str | None = None
    folder: str | None = None  # of downloads; None: the hub library's own


def named_models(settings: EngineSettings, model: str) -> list[NamedModel]:
    """The model and the adapters."""
    adapters = settings.lora.items()
    return [
        NamedModel("model", model, "model (commit)"),
        *(NamedModel(f"engine.lora.{name}", place, f"engine.lora.{name} (commit)") for name, place in adapters),
    ]


def see_models(models: Sequence[NamedModel]) -> None:
    """See that they can be had, before an engine is imported. Raises as ``see_model``."""
    for each in models:
        see_model(each.setting, each.place, each.revision, each.folder)


@dataclass(frozen=True, slots=True)
class EngineKind:
    """All that the rest of llmbatch knows of an engine that is not started: one value an engine, named in the room's table."""

    make: EngineFactory
    settings: type[EngineSettings]  # refuses what is not for this engine
    identity: Callable[[EngineSettings], Mapping[str, Any]]  # those of ``args`` that the answers depend on
    smaller: Callable[
        [EngineSettings, EngineInfo | None], Smaller | None
    ]  # after out of memory; ``None``: no less will do
    candidates: Callable[[EngineSettings, Around], Sequence[Candidate]]  # for autotune; none where the job sets all
    devices: Callable[[EngineSettings], int]  # GPUs that one engine runs on
    limits: Callable[
        [EngineSettings, ModelFacts], EngineInfo
    ]  # what it will be, as far as that is known without a start
    tokenizer: Callable[[EngineSettings], TokenizerSource] = lambda _: TokenizerSource()
    models: Callable[[EngineSettings, str], list[NamedModel]] = (
        named_models  # the second is what it is given as its model
    )
    tells_thinking: Callable[[EngineSettings], bool] = lambda settings: (
        settings.reasoning_parser is not None
    )  # whether it knows where a model's thinking ends, and so can limit it
    images: Callable[[EngineSettings, str], bool] = lambda *_: (
        False
    )  # whether it gives the model images, and nothing tells that this model takes none
    packages: tuple[str, ...] = ()  # whose versions its answers depend on
    hosted: bool = False  # whether several of it need a process each
    places: Callable[[EngineSettings, Machine], list[Place]] = lambda settings, _: (
        [Place()] * settings.engines
    )  # where each of several runs; raises ``JobError`` where there is no room for them
    shared: Callable[[EngineSettings], EngineSettings] = lambda settings: (
        settings
    )  # those for an engine that live requests are to find room in, beside runs
    # The settings for a model that is to give such numbers, or with None text. Raises ``JobError`` where the config of the model
    # tells that it cannot. An engine without it gives text alone.
    pooled: Callable[[EngineSettings, str, Pooling | None], EngineSettings] | None = None
    # What it calls that which other systems have under names of their own: gpus_of_tensors, gpus_of_layers, requests_a_step,
    # tokens_a_step, longest (prompt with answer), memory (the share of a GPU's), numbers (their type), numbers_of_cache, quantized
    arguments: Mapping[str, str] = field(default_factory=dict)
    # The settings without guessing tokens ahead; None where they do not ask for that.
    unspeculating: Callable[[EngineSettings], EngineSettings | None] = lambda _: None
    quick: Mapping[str, Any] = field(
        default_factory=dict
    )  # ``args`` for a model so small that to start is most of the work


def kind_of(name: str) -> EngineKind:
    """What is known of the engine with this name. Raises ``JobError`` for an unknown one."""
    kind: EngineKind = find(ENGINES, name, "engine")
    return kind


def checked(engine: EngineSettings) -> EngineSettings:
    """The settings as their engine's own class. Raises ``JobError`` for an unknown engine, and for what it does not take."""
    kind = kind_of(engine.name)
    if engine.cluster is not None and engine.hosted is False:
        raise JobError("engine.hosted: engines of a cluster are in processes of other machines: leave it out")
    if engine.replicas != 1 and engine.hosted is False and kind.hosted:
        raise JobError(
            f"engine.hosted: several {engine.name} engines need a process each, as each has its own devices: leave it out"
        )
    try:
        return kind.settings.model_validate(engine.model_dump())
    except ValidationError as error:
        said = [problem["msg"].removeprefix("Value error, ") for problem in error.errors(include_url=False)]
        raise JobError("; ".join(said)) from None


def resolved(engine: EngineSettings, machine: Machine) -> EngineSettings:
    """The settings with ``auto`` replicas as a number: as many as the GPUs are enough for, 1 where there are none."""
    if engine.replicas != "auto":
        return engine
    each = max(1, kind_of(engine.name).devices(engine))
    if machine.gpus and len(machine.gpus) < each:
        raise JobError(
            f"engine.replicas=auto: one engine needs {each} GPUs, and {len(machine.gpus)} are visible ({machine.seen}): lower "
            "tensor_parallel_size or pipeline_parallel_size, or show it more"
        )
    return engine.model_copy(update={"replicas": min(_MOST_REPLICAS, max(1, len(machine.gpus) // each))})


def is_hosted(engine: EngineSettings) -> bool:
    """Whether its engines run in processes of their own."""
    if engine.cluster is not None:
        return True
    if engine.hosted is not None:
        return engine.hosted
    return engine.engines > 1 and kind_of(engine.name).hosted


def make_engine(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    """An engine by name, not yet started. Raises ``JobError`` for an unknown name, or settings that it does not take."""
    return kind_of(engine.name).make(model, checked(engine), chat, log)


__all__ = [
    "NO_DRAFTS",
    "Around",
    "CanBeKilled",
    "Candidate",
    "Drafts",
    "Driver",
    "Engine",
    "EngineFactory",
    "EngineInfo",
    "EngineKind",
    "EngineSettings",
    "ModelFacts",
    "NamedModel",
    "SharedDriver",
    "Smaller",
    "Speculates",
    "Speculation",
    "TokenizerSource",
    "checked",
    "idle_share",
    "is_hosted",
    "kind_of",
    "make_engine",
    "resolved",
    "see_models",
]
