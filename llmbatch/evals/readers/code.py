"""An output in; the program in it, out: its last code block, or all of it where it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from llmbatch.evals.readers.base import ReaderKind, ReaderSettings, plain_text

# a block that the end of the answer cut off counts too
_BLOCK = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)


class CodeSettings(ReaderSettings):
    language: str | None = Field(None, description="blocks that name another language are no answer")
    which: Literal["first", "last"] = Field("last", description="of several blocks")
    block: bool = Field(False, description="an answer without a block is none")


def read(text: str, settings: CodeSettings, _choices: Sequence[str]) -> str | None:
    blocks = [
        code
        for language, code in _BLOCK.findall(text)
        if settings.language is None or language.lower() in ("", settings.language.lower())
    ]
    if blocks:
        return (blocks[0 if settings.which == "first" else -1]).strip("\n") or None
    return None if settings.block or "```" in text else (text.strip("\n") or None)


KIND = ReaderKind(CodeSettings, read, lambda _: "code", plain_text)
