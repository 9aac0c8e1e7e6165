"""Which rows a window holds, and that as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch.core.types import Cursor


class Bounds(NamedTuple):
    """Which rows a window holds: from ``start`` up to ``stop`` (``None``: the end of the input as it was)."""

    window: int
    start: Cursor
    last: Cursor  # of its last row: where a grown input is entered again
    stop: Cursor | None
    rows: int


def bounds_from_dict(data: Mapping[str, Any]) -> Bounds:
    stop = data["stop"]
    return Bounds(
        data["window"], Cursor(*data["start"]), Cursor(*data["last"]), Cursor(*stop) if stop else None, data["rows"]
    )


def bounds_to_dict(bounds: Bounds) -> dict[str, Any]:
    return {
        "window": bounds.window,
        "start": list(bounds.start),
        "last": list(bounds.last),
        "stop": list(bounds.stop) if bounds.stop else None,
        "rows": bounds.rows,
    }
