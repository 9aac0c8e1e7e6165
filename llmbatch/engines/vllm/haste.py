"""A start or an end of vLLM in this process; the same without what takes seconds and gives nothing.

From its start to its end vLLM searches for garbage ten times, half a second long each time, as all that was ever imported is looked
at. And it imports ray where that is installed, a second more, also where it is not asked for.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SEARCHES = ("collect", "freeze", "unfreeze")
_lock = threading.Lock()
_holders = 0
_before: dict[str, Any] = {}


@contextmanager
def no_search(*, keeps: bool = False) -> Iterator[None]:
    """Meanwhile nobody searches for cyclic garbage: not Python by itself, and not vLLM where it asks for it.

    ``keeps``: what is there at the end is there to stay, and no later search looks at it until ``gc.unfreeze``.
    """
    _hold()
    try:
        yield
    finally:
        _release(keeps)


def _hold() -> None:
    global _holders
    with _lock:
        if not _holders:
            _before.update({name: getattr(gc, name) for name in _SEARCHES}, enabled=gc.isenabled())
            gc.disable()
            for name in _SEARCHES:
                setattr(gc, name, _nothing)
        _holders += 1


def _release(keeps: bool) -> None:
    global _holders
    with _lock:
        _holders -= 1
        if keeps:
            _before["freeze"]()
        if not _holders:
            for name in _SEARCHES:
                setattr(gc, name, _before[name])
            if _before["enabled"]:
                gc.enable()


def _nothing(_generation: int = 2) -> int:
    """In the place of ``gc.collect`` and its like."""
    return 0


class _Absent(MetaPathFinder):
    """Some packages are not there, for one thread."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}: it is left out to save time", name=name)
        return None


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Meanwhile this thread does not find these packages, where they are not imported yet: who can do without them does."""
    finder = _Absent(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


__all__ = ["no_search", "without"]
