"""A job's engine section in; what of it is for this engine and what its answers depend on out, known without torch."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from llmbatch.core.words import near, short
from llmbatch.engines.settings import EngineSettings

BATCHING = ("auto", "continuous", "plain")
OWN = ("batching", "device", "max_model_len", "max_num_seqs", "tokenizer", "tokenizer_revision")
# for ``from_pretrained``
LOADING = (
    "attn_implementation", "cache_dir", "code_revision", "device_map", "dtype", "local_files_only", "max_memory",
    "offload_folder", "quantization_config", "revision", "subfolder", "use_safetensors", "variant",
)  # fmt: skip
# of ``ContinuousBatchingConfig``
CONTINUOUS = (
    "allow_block_sharing", "auto_switch_to_flash", "cpu_offload_space", "cpu_offload_space_safety_threshold",
    "max_batch_tokens", "max_memory_percent", "num_blocks", "page_size", "safety_margin", "scheduler_type",
)  # fmt: skip
_ELSEWHERE = {
    "model": "model",
    "chat_template": "chat.template",
    "trust_remote_code": "engine.trust_remote_code",
    "torch_dtype": "engine.args.dtype",
    "max_requests_per_batch": "engine.args.max_num_seqs",
    "block_size": "engine.args.page_size",
}
# they change how fast answers come, and the answers at most by the rounding of their arithmetic
_SPEED = frozenset(
    {*CONTINUOUS, "batching", "cache_dir", "device", "device_map", "local_files_only", "max_memory", "max_num_seqs",
     "offload_folder", "use_safetensors"}
)  # fmt: skip
_COUNTS = {"max_num_seqs": 1, "max_model_len": 2, "page_size": 4, "num_blocks": 1, "max_batch_tokens": 1}


class TransformersSettings(EngineSettings):
    """The engine section of a job on transformers. ``args`` are of the model's loading, and of continuous batching."""

    @model_validator(mode="after")
    def _of_this_engine(self) -> TransformersSettings:
        if self.script is not None:
            raise ValueError("engine.script is for the scripted engine alone: give --engine scripted, or take it out")
        if self.tool_call_parser is not None:
            raise ValueError(
                "engine.tool_call_parser: these are vLLM's parsers, which this engine has not: take it out"
            )
        if self.reasoning_parser is not None:
            raise ValueError(
                "engine.reasoning_parser: these are vLLM's parsers, which this engine has not: take it out"
            )
        if self.in_process is False:
            raise ValueError(
                "engine.in_process=false is for vLLM: engine.hosted=true gives this engine its own process"
            )
        for name, value in self.args.items():
            if problem := argument_problem(name, value):
                raise ValueError(f"engine.args.{name} {problem}")
        return self


def argument_problem(name: str, value: Any) -> str | None:
    """What is wrong with one argument, in words that follow its name; ``None`` where nothing is."""
    if name in _ELSEWHERE:
        return f"is given as {_ELSEWHERE[name]}"
    known = (*OWN, *LOADING, *CONTINUOUS)
    if name not in known:
        return f"is none that the transformers engine has{near(name, known)}; known are {', '.join(sorted(known))}"
    if name == "batching" and value not in BATCHING:
        return f"is {short(value)}, and must be one of {', '.join(BATCHING)}"
    least = _COUNTS.get(name)
    if least is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        return f"is {short(value)}, and must be a whole number of at least {least}"
    return None


def identity(settings: EngineSettings) -> dict[str, Any]:
    """Those of the arguments that the answers depend on."""
    return {name: value for name, value in settings.args.items() if name not in _SPEED}
