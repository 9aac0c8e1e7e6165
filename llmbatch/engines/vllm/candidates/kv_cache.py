"""The KV cache in 8 bits: it holds twice as many tokens, and keys and values are rounded."""

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

_KIND = "kv cache"
_NAME = "kv_cache_dtype=fp8"
_CPU_HEADS = 32  # that a head's numbers are a multiple of, for vLLM's kernels


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, "kv_cache_dtype"):
        return given
    if on_cpu(around) and (why := _not_on_this_cpu(settings, around)):
        return [left_out(_KIND, _NAME, why)]
    return [Candidate(_NAME, with_args(settings, {"kv_cache_dtype": "fp8"}), _KIND, exact=False)]


def _not_on_this_cpu(settings: EngineSettings, around: Around) -> str | None:
    config = config_of(settings, around)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    size = config.get("head_dim") or (width // heads if isinstance(width, int) and isinstance(heads, int) else None)
    if isinstance(size, int) and size % _CPU_HEADS:
        return f"on a CPU vLLM takes heads of a multiple of {_CPU_HEADS} numbers, and this model's have {size}"
    if lacks_instructions("avx512f", "amx_tile"):
        return "on a CPU vLLM needs AVX-512 or AMX for it, and this one has neither"
    return None
