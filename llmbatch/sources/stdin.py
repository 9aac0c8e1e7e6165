"""Stdin in, a file with the same bytes out, so that a run whose input came through a pipe can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llmbatch.core.files import atomic_write
from llmbatch.sources.input_files import reading

_CHUNK = 1 << 20


def spool(stream: BinaryIO, path: Path) -> int:
    """Copy a stream to its end into a file, whole or not at all; returns its size in bytes.

    Raises ``ReadError`` or ``WriteError``.
    """

    def chunks() -> Iterator[bytes]:
        size = 0
        while True:
            with reading("stdin", lambda: size):  # noqa: B023 - called within the block
                chunk = stream.read(_CHUNK)
            if not chunk:
                return
            size += len(chunk)
            yield chunk

    return atomic_write(path, chunks())
