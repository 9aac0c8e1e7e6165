"""The KV cache of vLLM on a CPU, cleared by the kernel as it is used, instead of all at once before the engine is up.

vLLM has its cache full of zeros. torch writes them: a fifth of a second for each half GiB at the start, of pages of memory of which
a short run uses few, and as long again to give them back. Memory that comes from the kernel holds zeros anyway, and takes neither
time nor room before something is written to it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LEAST = 1 << 20  # bytes: what is smaller may come from anywhere


@contextmanager
def cleared_by_use() -> Iterator[None]:
    """Meanwhile vLLM gets such memory for its cache."""
    from vllm.v1.worker import utils

    before = utils.torch
    # a vLLM that allocates it elsewhere, or another engine of this process starts
    if not hasattr(utils, "allocate_kv_cache") or isinstance(before, _Torch):
        yield
        return
    utils.torch = _Torch(before)
    try:
        yield
    finally:
        utils.torch = before


class _Torch:
    """torch, as one module sees it: large tensors of bytes that are zero are made of memory that is so by itself."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def zeros(self, size: Any, *more: Any, dtype: Any = None, device: Any = None, **named: Any) -> Any:
        """As ``torch.zeros``."""
        torch = self._torch
        here = device is not None and torch.device(device).type == "cpu"
        if more or named or not here or dtype is not torch.int8 or not isinstance(size, int) or size < _LEAST:
            return torch.zeros(size, *more, dtype=dtype, device=device, **named)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # lives as long as the tensor
        return torch.frombuffer(memory, dtype=dtype)


__all__ = ["cleared_by_use"]
