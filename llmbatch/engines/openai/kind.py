"""What the rest of llmbatch knows of the openai engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.engines.base import Engine, EngineInfo, EngineKind, EngineSettings, ModelFacts, TokenizerSource
from llmbatch.engines.openai.settings import OpenAISettings
from llmbatch.model.tokenizer import ChatSettings

_USUAL_REQUESTS = 256


def _make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    from llmbatch.engines.openai.engine import OpenAIEngine

    return OpenAIEngine(model, OpenAISettings.model_validate(engine.model_dump()), chat, log)


def _identity(settings: EngineSettings) -> Mapping[str, Any]:
    return settings.args


def _limits(settings: EngineSettings, model: ModelFacts) -> EngineInfo:
    return EngineInfo(
        name=settings.name,
        version="",
        model=model.model,
        context_length=model.context_length or None,
        max_num_seqs=settings.in_flight or _USUAL_REQUESTS,
    )


def _tokenizer(settings: EngineSettings) -> TokenizerSource:
    return TokenizerSource(OpenAISettings.model_validate(settings.model_dump()).tokenizer, needed=False)


KIND = EngineKind(
    make=_make,
    settings=OpenAISettings,
    identity=_identity,
    smaller=lambda *_: None,  # memory is the server's
    candidates=lambda *_: [],  # how many requests at a time is found out as it runs
    devices=lambda _: 0,
    limits=_limits,
    tokenizer=_tokenizer,
    models=lambda *_: [],  # the server has it
    tells_thinking=lambda _: True,
    images=lambda *_: True,
)
