"""What torch and transformers look up whenever they are imported in; the same, in less time, out.

transformers reads the metadata of every installed distribution, to know which package is of which, and twice the source of all its
models, to know what they hold: half a second and more, each time. Here another process reads the metadata while this one imports
torch, and of the models' sources what was read once is kept, where transformers keeps a quarter of it, and only their last lines
are looked through. torch asks for each operator in which file and line it is defined, and gets the source around it, for which all
modules are looked through; here it gets file and line. Where anything is otherwise than is known here it is looked up as ever.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from llmbatch.core.machine import processors

_PACKAGE = "transformers"
_MODELS = "transformers.utils.import_utils"
_READ = "create_import_structure_from_path"
_NAMES = "fetch__all__"
_OPERATORS = "torch._library.utils"
_PROGRAM = """
import sys, json
sys.path[:] = json.loads(sys.argv[1])
from importlib.metadata import packages_distributions
print(json.dumps(packages_distributions()))
"""
_SECONDS = 10.0  # that the other process may take


@contextmanager
def quick_lookups() -> Iterator[None]:
    """Meanwhile torch and transformers are imported sooner, if they are not yet."""
    with places_without_source():
        if _PACKAGE in sys.modules:
            yield
            return
        finder = _Keeping()
        sys.meta_path.insert(0, finder)
        try:
            with distributions_beside():
                yield
        finally:
            sys.meta_path.remove(finder)


@contextmanager
def places_without_source() -> Iterator[None]:
    """torch's registry of operators gets a place in the code without the lines around it, of which it makes no use."""
    with _Places.lock:
        _Places.holders += 1
        if _Places.holders == 1:
            _Places.own, inspect.getframeinfo = inspect.getframeinfo, _place
    try:
        yield
    finally:
        with _Places.lock:
            _Places.holders -= 1
            if not _Places.holders:
                inspect.getframeinfo = _Places.own


class _Places:
    """How many engines of this process are being imported, in whatever order they are done, and Python's own function."""

    lock = threading.Lock()
    holders = 0
    own: Any = inspect.getframeinfo


def _place(frame: Any, context: int = 1) -> Any:
    """In the place of ``inspect.getframeinfo``."""
    asks = sys._getframe(1).f_globals.get("__name__")
    return _Places.own(frame, 0 if asks == _OPERATORS else context)


@contextmanager
def distributions_beside() -> Iterator[None]:
    """Another process looks up which distributions have which packages; who asks ``importlib.metadata`` meanwhile gets that."""
    own = importlib.metadata.packages_distributions
    process = _begin()
    if process is None:
        yield
        return

    @functools.cache
    def found() -> Mapping[str, list[str]]:
        try:
            said, _ = process.communicate(timeout=_SECONDS)
            return dict(json.loads(said))
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return own()

    importlib.metadata.packages_distributions = found
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = own
        process.kill()
        process.communicate()


def _begin() -> subprocess.Popen[bytes] | None:
    """The other process; None where there is no processor for it, or it would not find what this one finds."""
    others = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions") and finder is not PathFinder]
    if len(processors()) < 2 or others:
        return None
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    return None


class _Keeping(MetaPathFinder):
    """Has transformers keep all that it read of its models' sources, from its first look on, and read less of each."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODELS or (spec := PathFinder.find_spec(name, path, target)) is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            read: Any = getattr(module, _READ, None)
            if hasattr(read, "cache_parameters") and hasattr(read, "__wrapped__"):
                setattr(module, _READ, functools.lru_cache(maxsize=None)(read.__wrapped__))
            if (names := getattr(module, _NAMES, None)) is not None:
                setattr(module, _NAMES, from_its_last_list(names))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def from_its_last_list(names: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The names that a source exports, by a function that looks at every line for the last list of them; given only that."""

    def quick(source: str) -> list[str]:
        return names(source[source.rfind("\n__all__") + 1 :])

    return quick


__all__ = ["distributions_beside", "from_its_last_list", "places_without_source", "quick_lookups"]
