"""Run an LLM over a whole corpus on hardware that you own: one checked result for every row, nothing lost.

``run`` runs a job into a folder, ``generate`` gives records inside a script, ``publish`` makes a dataset of runs, ``evaluate``
scores a model on a task. A program of your own is a generator function of a ``RowAsk``: it yields an ``Ask``, several, or
``Branches`` of other generators, and returns a value, ``Complete`` or ``Incomplete``.
Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import LlmbatchError, RunError, Stopped, UsageError
from llmbatch.core.types import Failure, FailureKind, Record, Status, Usage

if TYPE_CHECKING:
    from llmbatch.api import Published, Run, generate, publish, run
    from llmbatch.evals.api import evaluate
    from llmbatch.programs.base import Ask, Branches, Complete, Incomplete, Program, RowAsk

__version__ = "0.1.0"

__all__ = [
    "Ask",
    "Branches",
    "Complete",
    "Failure",
    "FailureKind",
    "Incomplete",
    "LlmbatchError",
    "Program",
    "Published",
    "Record",
    "RowAsk",
    "Run",
    "RunError",
    "Status",
    "Stopped",
    "Usage",
    "UsageError",
    "__version__",
    "evaluate",
    "generate",
    "publish",
    "run",
]

_INTEGRATIONS = frozenset({"huggingface", "mlflow", "pandas", "polars", "ray", "spark", "verta"})
"""Modules that are attributes without an import of their own."""


def __getattr__(name: str) -> Any:
    if name in {"Published", "Run", "generate", "publish", "run"}:
        from llmbatch import api

        return getattr(api, name)
    if name == "evaluate":
        from llmbatch.evals.api import evaluate

        return evaluate
    if name in {"Ask", "Branches", "Complete", "Incomplete", "Program", "RowAsk"}:
        from llmbatch.programs import base

        return getattr(base, name)
    if name in _INTEGRATIONS:
        from importlib import import_module

        return import_module(f"llmbatch.{name}")
    raise AttributeError(f"module 'llmbatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_INTEGRATIONS})
