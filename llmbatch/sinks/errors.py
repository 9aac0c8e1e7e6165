"""Sealed parts in, ``errors.jsonl`` out: the lines of the records that are not ok, unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmbatch.core.files import atomic_write
from llmbatch.core.types import Status
from llmbatch.folder.records import part_lines, status_of
from llmbatch.sinks.base import NO_ORIGIN, Origin


def write_errors(parts: Sequence[Path], folder: Path, origin: Origin = NO_ORIGIN) -> Path:  # noqa: ARG001 - the contract's
    """Written even where every record is ok, and then empty."""
    path = folder / "errors.jsonl"
    atomic_write(path, (line for line in part_lines(parts) if status_of(line) != Status.OK))
    return path
