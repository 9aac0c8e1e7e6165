"""Run an LLM over a whole corpus on hardware that you own: one checked result for every row, nothing lost.

``run`` runs a job into a folder, ``generate`` gives records inside a script, ``publish`` makes a dataset of runs. Importing this
package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import LlmbatchError, RunError, Stopped, UsageError
from llmbatch.core.types import Failure, FailureKind, Record, Status, Usage

if TYPE_CHECKING:
    from llmbatch.api import Published, Run, generate, publish, run

__version__ = "0.1.0"

__all__ = [
    "Failure",
    "FailureKind",
    "LlmbatchError",
    "Published",
    "Record",
    "Run",
    "RunError",
    "Status",
    "Stopped",
    "Usage",
    "UsageError",
    "__version__",
    "generate",
    "publish",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in {"Published", "Run", "generate", "publish", "run"}:
        from llmbatch import api

        return getattr(api, name)
    raise AttributeError(f"module 'llmbatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
