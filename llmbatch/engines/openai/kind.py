"""What the rest of llmbatch knows of the openai engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import Pooling
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.kinds import EngineKind, ModelFacts, TokenizerSource
from llmbatch.engines.openai.settings import OpenAISettings
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

_USUAL_REQUESTS = 256
_VLLM_HAS = " (vLLM's server alone does, and not in batches)"


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


def _pooled(settings: EngineSettings, _model: str, pooling: Pooling | None) -> EngineSettings:
    """Vectors are what the API has of numbers; what vLLM's server has besides is known once it is seen whose server it is."""
    if pooling is None or not isinstance(settings, OpenAISettings):
        return settings
    may_be_vllm = settings.dialect == "vllm" or (settings.dialect == "auto" and not settings.are_openais)
    if settings.mode == "online" and may_be_vllm:
        return settings
    if pooling.task == "pairs":
        raise JobError(
            f"program.settings.encoder=cross: OpenAI's API has no scores of pairs{_VLLM_HAS}. --set program.settings.encoder=bi "
            "compares the vectors of an embedding model, --engine vllm has rerankers"
        )
    if pooling.task == "classify":
        raise JobError(
            f"the program classify asks for the probabilities of classes, which OpenAI's API does not have{_VLLM_HAS}; it has "
            "vectors (--program embed): take --engine vllm"
        )
    if pooling.activation is not None and not may_be_vllm:
        raise JobError(
            f"program.settings.normalize: OpenAI's API has no setting for it{_VLLM_HAS}: leave it out, and vectors are as the "
            "server makes them"
        )
    return settings


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
    tools=lambda *_: None,  # the server reads the calls, or refuses
    pooled=_pooled,
)
