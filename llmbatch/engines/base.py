"""The contract of an engine: a feed of requests in, a stream of outcomes out, each request answered once, as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines import ENGINES
from llmbatch.engines.feed import Feed
from llmbatch.model.tokenizer import ChatSettings


class EngineSettings(BaseModel):
    """How the engine is built and driven. ``args`` go to the engine itself: for vLLM, its engine arguments by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("vllm", description="vllm or scripted")
    args: dict[str, Any] = Field(
        default_factory=dict, description="engine arguments, e.g. tensor_parallel_size, quantization"
    )
    in_process: bool | None = Field(
        None, description="run the engine core in this process; by default only on a CPU, where it starts faster"
    )
    in_flight: int | None = Field(
        None, ge=1, description="requests handed to the engine; by default twice its max_num_seqs"
    )
    in_flight_tokens: int | None = Field(None, ge=1, description="prompt tokens handed to the engine at a time")
    timeout: float = Field(
        600.0, gt=0, description="seconds without any progress after which the engine counts as hung"
    )
    restarts: int = Field(
        5, ge=0, description="engine deaths survived without an answer between them, before the run stops"
    )
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser that splits the thinking part off")
    lora: dict[str, str] = Field(default_factory=dict, description="LoRA adapters: name to path")
    script: str | None = Field(None, description="scripted engine: path of its script (YAML)")
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a started engine is. Lengths are in tokens."""

    name: str
    version: str
    model: str
    context_length: int
    max_num_seqs: int
    kv_cache_tokens: int | None = None
    block_size: int | None = None
    device: str = "none"
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

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        """The token ids that the model gets for each prompt, prefill included, in order; works before ``start``."""

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


EngineFactory = Callable[[str, EngineSettings, ChatSettings, Path], Engine]
"""(model, engine settings, chat settings, path of the engine's log file) -> an engine that is not yet started."""


def make_engine(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    """An engine by name, not yet started. Raises ``JobError`` for an unknown name."""
    factory: EngineFactory = find(ENGINES, engine.name, "engine")
    return factory(model, engine, chat, log)


__all__ = ["Engine", "EngineFactory", "EngineInfo", "EngineSettings", "make_engine"]
