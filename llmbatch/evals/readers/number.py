"""An output in; a number that it names, out: with separators of thousands, a sign, an exponent, a unit behind it.

"about 1,234.5 km"  ->  1234.5          "1.234,5" with decimal: ","  ->  1234.5
"$3 million" with units: {million: 1000000}  ->  3000000
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from llmbatch.core.words import short
from llmbatch.evals.readers.base import ReaderKind, ReaderSettings

_SPACES = " \u00a0\u2009\u202f'_"
_MOST_DIGITS = 300  # what is longer is no number that anyone meant


class NumberSettings(ReaderSettings):
    which: Literal["first", "last"] = Field("last", description="of several numbers")
    decimal: Literal[".", ","] = Field(
        ".", description="what stands before the decimals; the other separates thousands"
    )
    units: dict[str, float] = Field(
        default_factory=dict,
        description="words behind a number, and what it is multiplied by: {million: 1000000, '%': 0.01}",
    )


@lru_cache(maxsize=8)
def _pattern(decimal: str, units: tuple[str, ...]) -> re.Pattern[str]:
    thousands = ("," if decimal == "." else r"\.") + re.escape(_SPACES)
    unit = "|".join(re.escape(each) for each in sorted(units, key=len, reverse=True))
    behind = rf"(?:\s*(?P<unit>{unit})(?!\w))?" if unit else ""
    return re.compile(
        rf"(?<![\w])(?P<sign>[-+\u2212])?\s?[$€£¥]?\s?(?:(?P<whole>\d{{1,3}}(?:[{thousands}]\d{{3}})+(?!\d)|\d+)"
        rf"(?:{re.escape(decimal)}(?P<part>\d+))?|(?<!\.){re.escape(decimal)}(?P<bare>\d+))(?:[eE](?P<power>[-+]?\d{{1,3}}))?{behind}"
    )


def read(text: str, settings: NumberSettings, _choices: Sequence[str]) -> int | float | None:
    pattern = _pattern(settings.decimal, tuple(settings.units))
    found = list(pattern.finditer(text))
    if not found:
        return None
    match = found[0 if settings.which == "first" else -1]
    whole = "".join(digit for digit in match["whole"] or "0" if digit.isdecimal())
    if len(whole) > _MOST_DIGITS:
        return None
    sign = "-" if match["sign"] in ("-", "\u2212") else ""
    number = Decimal(f"{sign}{whole}.{match['part'] or match['bare'] or '0'}e{match['power'] or '0'}")
    if settings.units and match["unit"]:
        number *= Decimal(str(settings.units[match["unit"]]))
    plain = _plain(number)
    return plain if math.isfinite(plain) else None


def reference(value: Any, settings: NumberSettings, choices: Sequence[str]) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _plain(Decimal(str(value)))
        except (InvalidOperation, ValueError, OverflowError):
            raise ValueError(f"is {short(value)}, which is no number") from None
    found = read(value, settings, choices) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"is {short(value)}, in which there is no number")
    return found


def _plain(number: Decimal) -> int | float:
    """2.50 is 2.5, and 3.0 is 3, however it was written."""
    if not number.is_finite():
        raise ValueError(f"is {number}, which is no number")
    return int(number) if number == number.to_integral_value() and abs(number) < Decimal(10) ** 15 else float(number)


KIND = ReaderKind(NumberSettings, read, lambda _: "number", reference)
