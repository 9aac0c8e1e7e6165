"""A time as people write it in, seconds out."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd]\s*)+")


def _seconds(value: Any) -> Any:
    """``90``, ``"90s"``, ``"15m"``, ``"8h"``, ``"1h30m"`` or ``"2d"`` as seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    try:
        return float(text)
    except ValueError:
        raise ValueError("a time is a number of seconds, or such as 90s, 15m, 1h30m or 2d") from None


Seconds = Annotated[float, BeforeValidator(_seconds), Field(allow_inf_nan=False)]


__all__ = ["Seconds"]
