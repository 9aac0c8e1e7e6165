"""A loaded model and its settings in; how many rows run at a time, and how large the cache is, out.

On a GPU both are left to the library where nothing is said. On a processor it would take nine tenths of the machine's memory.
"""

from __future__ import annotations

from typing import Any

from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers.loading import Loaded
from llmbatch.engines.transformers.settings import CONTINUOUS
from llmbatch.model.memory import cache_bytes_per_token

_CPU_SEQUENCES = 64
_CPU_PAGE = 32  # the library's 256 never share a shorter prefix
_CPU_BATCH_TOKENS = 2048
_TOKENS_PER_SEQUENCE = 512
_CONTEXTS = 2  # rows of the greatest length that run at a time at least
_PLAIN_SEQUENCES = 64
_MEMORY_WITH_PROCESSOR = 0.8  # the library's own share where scores are processed, which it is not told of in time


def plain_size(settings: EngineSettings) -> int:
    """Rows of a batch of ``generate``."""
    return int(settings.args.get("max_num_seqs") or _PLAIN_SEQUENCES)


def continuous_sizes(loaded: Loaded, settings: EngineSettings) -> dict[str, Any]:
    """Fields of ``ContinuousBatchingConfig``."""
    args = settings.args
    given = {name: args[name] for name in CONTINUOUS if name in args}
    if "max_num_seqs" in args:
        given["max_requests_per_batch"] = args["max_num_seqs"]
    if loaded.device.type == "cpu":
        return _for_processor(loaded, given, settings.engines)
    return {"max_memory_percent": _MEMORY_WITH_PROCESSOR, **given}


def _for_processor(loaded: Loaded, given: dict[str, Any], engines: int) -> dict[str, Any]:
    """``engines`` share the machine's memory."""
    sized = {
        "page_size": _CPU_PAGE,
        "max_requests_per_batch": _CPU_SEQUENCES,
        "max_batch_tokens": _CPU_BATCH_TOKENS,
        **given,
    }
    if "num_blocks" in given or "max_memory_percent" in given:
        return sized
    import psutil

    wanted = max(sized["max_requests_per_batch"] * _TOKENS_PER_SEQUENCE, _CONTEXTS * loaded.context_length)
    token = cache_bytes_per_token(loaded.model.config.get_text_config().to_dict())
    if token is not None:
        numbers = loaded.model.dtype.itemsize / 2  # the estimate is for numbers of two bytes
        wanted = min(wanted, int(psutil.virtual_memory().available // 4 // engines // (token * numbers)))
    sized["num_blocks"] = max(2, wanted // sized["page_size"])
    return sized


__all__ = ["continuous_sizes", "plain_size"]
