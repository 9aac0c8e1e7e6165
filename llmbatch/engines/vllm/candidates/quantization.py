"""Weights in 8 bits, made so as the model is loaded: less memory to read for every token, and rounded weights."""

from __future__ import annotations

from collections.abc import Iterable

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates.base import (
    config_of,
    lacks_instructions,
    left_out,
    on_cpu,
    set_by_the_job,
    with_args,
)

_KIND = "quantization"
_NAME = "quantization=fp8"


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, "quantization", "quantization_config"):
        return given
    known = config_of(settings, around).get("quantization_config")
    if known is not None:
        method = known.get("quant_method", "some way") if isinstance(known, dict) else "some way"
        return [left_out(_KIND, _NAME, f"the model is quantized already ({method})")]
    if settings.lora:
        return [left_out(_KIND, _NAME, "the job has LoRA adapters, made for the weights as they are")]
    if on_cpu(around) and lacks_instructions("amx_tile"):
        return [left_out(_KIND, _NAME, "on a CPU vLLM needs AMX for sums in 8 bits, and this one does not have it")]
    return [Candidate(_NAME, with_args(settings, {"quantization": "fp8"}), _KIND, exact=False)]
