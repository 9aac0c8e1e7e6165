"""Stdin in, its bytes out: what comes through a pipe can be read once, so a run keeps it in its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from llmbatch.sources.input_files import reading

_CHUNK = 1 << 20


def stdin_stream() -> BinaryIO | None:
    """This process's stdin; ``None`` where it has none, as where it was closed."""
    return getattr(sys.stdin, "buffer", None)


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The bytes of a stream to its end, some at a time. Raises ``ReadError``."""
    size = 0
    while True:
        with reading("stdin", lambda: size):  # noqa: B023 - called within the block
            chunk = stream.read(_CHUNK)
        if not chunk:
            return
        size += len(chunk)
        yield chunk
