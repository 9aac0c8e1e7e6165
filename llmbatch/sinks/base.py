"""The contract of a sink: sealed parts in, the user's output out, each a file that is there whole or not at all.

``results.jsonl`` and ``errors.jsonl`` are always written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmbatch.core.table import find
from llmbatch.sinks import ALWAYS, SINKS


class SinkSettings(BaseModel):
    """What is written beside ``results.jsonl``, and what of the input goes into each record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: tuple[str, ...] = Field((), description="more files: parquet, openai")
    keep: tuple[str, ...] | Literal["all"] = Field((), description="input fields joined into each record, or all")

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in formats if name not in SINKS or name in ALWAYS]:
            raise ValueError(
                f"unknown output format {unknown[0]!r}: known are {', '.join(name for name in SINKS if name not in ALWAYS)}"
            )
        return tuple(dict.fromkeys(formats))


@dataclass(frozen=True, slots=True)
class Origin:
    """What formats want to know of a run that its records do not say. ``created`` is in Unix seconds."""

    model: str = ""
    created: int = 0
    chat: bool = True  # else plain completion
    samples: int = 1  # answers for a row; above 1 an output is a list of them


NO_ORIGIN = Origin()

Sink = Callable[[Sequence[Path], Path, Origin], Path]
"""(sealed parts in order, run folder, origin) -> the file it wrote.

Raises ``WriteError``, and ``FolderError`` for a part that cannot be read.
"""


def write_sinks(
    settings: SinkSettings,
    parts: Sequence[Path],
    folder: Path,
    origin: Origin = NO_ORIGIN,
) -> list[Path]:
    """Write every file that is asked for, ``errors.jsonl`` and ``results.jsonl`` first; returns them. Raises as ``Sink``."""
    names = (*ALWAYS, *settings.formats)
    return [find(SINKS, name, "output format")(parts, folder, origin) for name in names]
