"""An output in; all of it, without the space around it, out."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from llmbatch.evals.readers.base import ReaderKind, ReaderSettings, plain_text


class TextSettings(ReaderSettings):
    until: str | None = Field(None, min_length=1, description="what begins with this text is no part of the answer")


def read(text: str, settings: TextSettings, _choices: Sequence[str]) -> str | None:
    if settings.until is not None:
        text = text.partition(settings.until)[0]
    return text.strip() or None


KIND = ReaderKind(TextSettings, read, lambda _: "text", plain_text)
