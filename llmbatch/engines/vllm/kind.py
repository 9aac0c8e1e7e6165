"""What the rest of llmbatch knows of the vLLM engine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.engines.base import Engine, EngineSettings
from llmbatch.model.tokenizer import ChatSettings


def make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    """The engine, not yet started. Raises ``JobError`` where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise JobError(
            "vLLM is not installed: pip install 'llmbatch[gpu]' for an NVIDIA GPU, 'llmbatch[cpu]' for a CPU; "
            "--engine scripted rehearses a job without it"
        )
    from llmbatch.engines.vllm.engine import VllmEngine

    return VllmEngine(model, engine, chat, log)
