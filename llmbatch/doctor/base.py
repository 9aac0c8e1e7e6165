"""The contract of a look: nothing in, what was found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

State = Literal["ok", "note", "warning", "wrong"]


class Finding(NamedTuple):
    """One thing that was looked at. ``wrong``: no run will do; ``warning``: some will not; ``note``: something is not there that
    not everybody needs. ``advice`` says what to try."""

    name: str
    state: State
    seen: str
    advice: str = ""


Check = Callable[[], Iterator[Finding]]

GIB = 1 << 30


def gib(size: float) -> str:
    """``12.5 GiB``, ``64 MiB``."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / (1 << 20):,.0f} MiB"
