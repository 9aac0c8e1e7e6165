"""A model that an earlier start compiled for a CPU in vLLM's cache; the same loaded again, instead of compiled anew, out.

vLLM saves what torch compiled, loads it at the next start, and then asks it to finish loading. That is for what vLLM's own backend
compiles, on a GPU. On a CPU torch's backend does, and what that saved is whole as it is loaded; but it has no such method, so that
vLLM throws it away and compiles again, at every start ("no attribute 'finalize_loading'", seen in 0.32). Here it gets the method:
there is nothing left to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_METHOD = "finalize_loading"


def can_load() -> bool:
    """Whether what this vLLM compiles for a CPU can be loaded again, with ``loadable``: not where torch is to compile nothing."""
    from torch._dynamo import config
    from vllm.compilation import decorators

    if config.disable or os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return False
    return _saved_by_torch() is not None and hasattr(decorators, "_try_load_aot_compiled_fn")


@contextmanager
def loadable() -> Iterator[None]:
    """Meanwhile vLLM can load what torch's own backend compiled."""
    saved = _saved_by_torch()
    if saved is None or hasattr(saved, _METHOD):
        yield
        return
    setattr(saved, _METHOD, _nothing_to_do)
    try:
        yield
    finally:
        delattr(saved, _METHOD)


def _saved_by_torch() -> Any:
    """The class of what torch's own backend compiled; None where this torch has no such."""
    try:
        from torch._dynamo.aot_compile_types import BundledAOTAutogradSerializableCallable
    except ImportError:
        return None
    return BundledAOTAutogradSerializableCallable


def _nothing_to_do(_compiled: object, _config: object) -> None:
    """In the place of vLLM's ``finalize_loading``."""


__all__ = ["can_load", "loadable"]
