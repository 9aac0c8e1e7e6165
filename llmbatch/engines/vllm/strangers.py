"""vLLM's search for kernels in everything that is imported, made safe for values that can be asked nothing, and short."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

_WITHOUT = sys.stdlib_module_names | {
    "PIL", "aiohttp", "cv2", "datasets", "fastapi", "httpx", "huggingface_hub", "jinja2", "llmbatch", "mpmath", "networkx", "numba",
    "numpy", "openai", "opentelemetry", "pandas", "prometheus_client", "psutil", "pyarrow", "pydantic", "pydantic_core", "rich",
    "scipy", "setuptools", "sklearn", "starlette", "sympy", "tokenizers", "torch", "transformers", "triton", "urllib3", "yaml",
}  # fmt: skip
"""Packages that know nothing of vLLM, so that none of its kernels is there: nine of ten values that it would look at."""


def ask_safely() -> None:
    """As an engine starts, vLLM looks at every value of every module of the process, and asks each whether it has attributes.

    Flask's stand-ins for the request of now, which whoever imports Flask has in a module, raise ``RuntimeError`` at that, and the
    engine did not start. Of such a value the answer is now no. And where no kernel of vLLM's can be it does not look.
    """
    try:
        from vllm.triton_utils import dispatcher
    except ImportError:  # a vLLM that does not look
        return
    dispatcher.hasattr = _has  # found before the builtin by the functions of that module
    dispatcher.sys = SimpleNamespace(modules=_Modules())


def _has(value: Any, name: str) -> bool:
    try:
        return hasattr(value, name)
    except Exception:
        return False


class _Modules:
    """``sys.modules``, for a search without the packages that know nothing of vLLM."""

    def __getitem__(self, name: str) -> ModuleType:
        return sys.modules[name]

    def values(self) -> list[ModuleType]:
        return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in _WITHOUT]


__all__ = ["ask_safely"]
