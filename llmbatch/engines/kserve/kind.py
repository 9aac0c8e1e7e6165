"""What the rest of llmbatch knows of the kserve engine."""

from __future__ import annotations

from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.kinds import EngineKind, ModelFacts, NamedModel, TokenizerSource
from llmbatch.engines.kserve.settings import KserveSettings
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

_USUAL_IN_FLIGHT = 64  # where the server's own level is not found yet


def _make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    from llmbatch.engines.kserve.engine import KserveEngine

    return KserveEngine(model, _own(engine), chat, log)


def _own(settings: EngineSettings) -> KserveSettings:
    if not isinstance(settings, KserveSettings):
        raise JobError(f"engine.name is {settings.name!r}, and the engine is kserve")
    return settings


def _limits(settings: EngineSettings, model: ModelFacts) -> EngineInfo:
    return EngineInfo(
        name=settings.name,
        version="",
        model=model.model,
        context_length=model.context_length,
        max_num_seqs=settings.in_flight or _USUAL_IN_FLIGHT,
    )


def _tokenizer(settings: EngineSettings) -> TokenizerSource:
    return TokenizerSource(_own(settings).tokenizer)


def _models(settings: EngineSettings, _model: str) -> list[NamedModel]:
    """The model is the server's; here is at most its tokenizer."""
    tokenizer = _own(settings).tokenizer
    return [] if tokenizer is None else [NamedModel("engine.tokenizer", tokenizer, "engine.tokenizer (commit)")]


KIND = EngineKind(
    make=_make,
    settings=KserveSettings,
    identity=lambda _: {},  # it takes no ``args``
    smaller=lambda *_: None,  # memory is the server's
    candidates=lambda *_: [],  # how many requests at a time is found out as it runs
    devices=lambda _: 0,
    limits=_limits,
    tokenizer=_tokenizer,
    models=_models,
    tells_thinking=lambda _: False,
)
