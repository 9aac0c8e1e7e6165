"""An output in; what a regular expression finds in it, out: its first group, or all of it where it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from llmbatch.evals.readers.base import ReaderKind, ReaderSettings, plain_text


class RegexSettings(ReaderSettings):
    pattern: str = Field(description="in the syntax of Python's re")
    which: Literal["first", "last"] = Field("last", description="of several places where it matches")
    ignore_case: bool = False

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern


def read(text: str, settings: RegexSettings, _choices: Sequence[str]) -> str | None:
    found = list(re.finditer(settings.pattern, text, re.IGNORECASE if settings.ignore_case else 0))
    if not found:
        return None
    match = found[0 if settings.which == "first" else -1]
    groups = [group for group in match.groups() if group is not None]
    return (groups[0] if groups else match.group()).strip() or None


KIND = ReaderKind(RegexSettings, read, lambda _: "text", plain_text)
