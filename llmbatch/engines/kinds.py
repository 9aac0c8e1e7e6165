"""The name of an engine in; all that the rest of llmbatch knows of it before it is started out, and the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.table import find
from llmbatch.core.types import Pooling, Tools
from llmbatch.engines import ENGINES
from llmbatch.engines.base import (
    Engine,
    EngineFactory,
    EngineInfo,
)
from llmbatch.engines.devices import Machine, Place
from llmbatch.engines.settings import MOST_REPLICAS, EngineSettings
from llmbatch.model.hub import see_model
from llmbatch.model.tokenizer import ChatSettings


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


def _no_tools(settings: EngineSettings, _: Tools) -> str | None:
    return f"tools are not supported by the engine {settings.name}: the engines vllm and openai take them"


def needs_parser(settings: EngineSettings, tools: Tools) -> str | None:
    """``EngineKind.tools`` of an engine that reads calls by a parser: where one is asked for, the answer is held to JSON."""
    if tools.choice != "auto" or settings.tool_call_parser is not None:
        return None
    return (
        "tools with tool_choice auto need a parser that knows how this model writes its calls: give "
        "--set engine.tool_call_parser=NAME (hermes, llama3_json, mistral, ...: those of vllm serve --tool-call-parser), or ask "
        "with tool_choice required, none or the name of a tool"
    )


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
    tools: Callable[[EngineSettings, Tools], str | None] = (
        _no_tools  # why it cannot be offered these; None where it can
    )
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
    return engine.model_copy(update={"replicas": min(MOST_REPLICAS, max(1, len(machine.gpus) // each))})


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
    "Around", "Candidate", "EngineKind", "ModelFacts", "NamedModel", "Smaller", "TokenizerSource", "checked", "is_hosted",
    "kind_of", "make_engine", "named_models", "needs_parser", "resolved", "see_models",
]  # fmt: skip
