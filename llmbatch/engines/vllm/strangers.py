"""vLLM's search for kernels in everything that is imported, made safe for values that can be asked nothing."""

from __future__ import annotations

from typing import Any


def ask_safely() -> None:
    """As an engine starts, vLLM looks at every value of every module of the process, and asks each whether it has attributes.

    Flask's stand-ins for the request of now, which whoever imports Flask has in a module, raise ``RuntimeError`` at that, and the
    engine did not start. Of such a value the answer is now no.
    """
    try:
        from vllm.triton_utils import dispatcher
    except ImportError:  # a vLLM that does not look
        return
    dispatcher.hasattr = _has  # found before the builtin by the functions of that module


def _has(value: Any, name: str) -> bool:
    try:
        return hasattr(value, name)
    except Exception:
        return False


__all__ = ["ask_safely"]
