"""An output in; its last line that is not blank, out."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from llmbatch.evals.readers.base import ReaderKind, ReaderSettings, plain_text


class LastLineSettings(ReaderSettings):
    prefix: str = Field("", description="what the line may begin with, such as 'Answer:', and is taken off")


def read(text: str, settings: LastLineSettings, _choices: Sequence[str]) -> str | None:
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix(settings.prefix).strip() or None


KIND = ReaderKind(LastLineSettings, read, lambda _: "text", plain_text)
