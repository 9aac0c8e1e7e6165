"""Sinks: sealed parts in, the user's output out, each a file that is there whole or not at all.

``results.jsonl`` and ``errors.jsonl`` are always written. A new format is one file here and one line in ``SINKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class SinkSettings(BaseModel):
    """What is written beside ``results.jsonl``, and what of the input goes into each record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: tuple[str, ...] = Field((), description="more files: parquet, openai")
    keep: tuple[str, ...] | Literal["all"] = Field((), description="input fields joined into each record, or all")

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in formats if name not in SINKS]:
            raise ValueError(f"unknown output format {unknown[0]!r}: known are {', '.join(SINKS)}")
        return tuple(dict.fromkeys(formats))


@dataclass(frozen=True, slots=True)
class Origin:
    """What formats want to know of a run that its records do not say. ``created`` is in Unix seconds."""

    model: str = ""
    created: int = 0
    chat: bool = True  # else plain completion
    samples: int = 1  # answers for a row; above 1 an output is a list of them


Sink = Callable[[Sequence[Path], Path, Origin], Path]
"""(sealed parts in order, run folder, origin) -> the file it wrote.

Raises ``WriteError``, and ``FolderError`` for a part that cannot be read.
"""


def _results(parts: Sequence[Path], folder: Path, origin: Origin) -> Path:  # noqa: ARG001
    from llmbatch.sinks.results import write_results

    return write_results(parts, folder)


def _errors(parts: Sequence[Path], folder: Path, origin: Origin) -> Path:  # noqa: ARG001
    from llmbatch.sinks.errors import write_errors

    return write_errors(parts, folder)


def _parquet(parts: Sequence[Path], folder: Path, origin: Origin) -> Path:  # noqa: ARG001
    from llmbatch.sinks.parquet import write_parquet

    return write_parquet(parts, folder)


def _openai(parts: Sequence[Path], folder: Path, origin: Origin) -> Path:
    from llmbatch.sinks.openai import write_openai

    return write_openai(parts, folder, origin)


ALWAYS: tuple[Sink, ...] = (_errors, _results)  # errors reads every line, so damage is found before results are there
SINKS: dict[str, Sink] = {"parquet": _parquet, "openai": _openai}


def write_sinks(
    settings: SinkSettings,
    parts: Sequence[Path],
    folder: Path,
    origin: Origin = Origin(),
) -> list[Path]:
    """Write every file that is asked for, ``errors.jsonl`` and ``results.jsonl`` first; returns them. Raises as ``Sink``."""
    return [sink(parts, folder, origin) for sink in (*ALWAYS, *(SINKS[name] for name in settings.formats))]


__all__ = ["ALWAYS", "SINKS", "Origin", "Sink", "SinkSettings", "write_sinks"]
