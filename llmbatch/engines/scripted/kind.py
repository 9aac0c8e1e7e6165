"""What the rest of llmbatch knows of the scripted engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmbatch.core.types import Pooling
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.kinds import Around, Candidate, EngineKind, ModelFacts, Smaller, needs_parser
from llmbatch.engines.scripted.script import ScriptedSettings, load_script
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

_LEAST_SEQS = 2
_LEAST_AFTER_OUT_OF_MEMORY = 8
_USUAL_SEQS = 256
_SPEED = frozenset(
    {"accepts", "concurrency", "die_after", "jitter", "latency", "out_of_memory_above", "start_seconds", "starts"}
)


def _make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    from llmbatch.engines.scripted.engine import ScriptedEngine

    return ScriptedEngine(model, engine, chat, log)


def _identity(settings: EngineSettings) -> dict[str, Any]:
    return {name: value for name, value in settings.args.items() if name not in _SPEED}


def _smaller(settings: EngineSettings, info: EngineInfo | None) -> Smaller | None:
    seqs = info.max_num_seqs if info is not None else settings.in_flight or _USUAL_SEQS
    if seqs <= _LEAST_AFTER_OUT_OF_MEMORY:
        return None
    return Smaller(settings.model_copy(update={"in_flight": seqs // 2}), f"max_num_seqs={seqs // 2}")


def _candidates(settings: EngineSettings, around: Around) -> list[Candidate]:
    if settings.in_flight is not None:
        return []
    size = around.info.max_num_seqs
    return [
        Candidate(f"in_flight={other}", {"in_flight": other}) for other in (2 * size, size // 2) if other >= _LEAST_SEQS
    ]


def _unspeculating(settings: EngineSettings) -> EngineSettings | None:
    if not load_script(settings).accepts:
        return None
    return settings.model_copy(update={"args": {**settings.args, "accepts": []}})


def _limits(settings: EngineSettings, model: ModelFacts) -> EngineInfo:
    script = load_script(settings)
    return EngineInfo(
        name=settings.name,
        version="",
        model=model.model,
        context_length=script.context_length if "context_length" in script.model_fields_set else model.context_length,
        max_num_seqs=settings.in_flight or script.concurrency,
    )


def _pooled(settings: EngineSettings, _model: str, _pooling: Pooling | None) -> EngineSettings:
    """Any will do."""
    return settings


KIND = EngineKind(
    make=_make,
    settings=ScriptedSettings,
    identity=_identity,
    smaller=_smaller,
    candidates=_candidates,
    devices=lambda _: 1,
    limits=_limits,
    pooled=_pooled,
    unspeculating=_unspeculating,
    tools=needs_parser,
    images=lambda settings, _: not load_script(settings).no_images,
)
