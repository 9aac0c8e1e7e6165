"""What falls out of the GPU's KV cache kept in the machine's memory, so that a prefix that comes again is read, not computed."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates.base import left_out, on_cpu, set_by_the_job, with_args

_KIND = "kv offload"
_NAME = "kv_offloading_size"
_GIB = 1 << 30
_LEAST = 4  # GiB
_MOST = 64


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, _NAME, "kv_transfer_config"):
        return given
    if on_cpu(around):
        return [left_out(_KIND, _NAME, "on a CPU the KV cache is in the machine's memory as it is")]
    if not around.info.prefix_caching:
        return [left_out(_KIND, _NAME, "prefix caching is off, so nothing is read again")]
    free = int(psutil.virtual_memory().available) // _GIB
    size = min(_MOST, free // 4)
    if size < _LEAST:
        return [left_out(_KIND, _NAME, f"the machine has {free} GiB of memory free, of which it would take a quarter")]
    return [Candidate(f"{_NAME}={size}", with_args(settings, {_NAME: size}), _KIND, exact=False)]
