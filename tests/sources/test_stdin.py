from __future__ import annotations

import io
import sys

import pytest

from llmbatch.core.errors import ReadError
from llmbatch.sources.stdin import chunks, stdin_stream


class Breaks(io.RawIOBase):
    """A stream that gives some bytes and then fails, as a pipe from a dead machine does."""

    def __init__(self) -> None:
        self.left = 3

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if not self.left:
            raise OSError(5, "Input/output error")
        return b"x" * 10


def test_the_bytes_come_as_they_are() -> None:
    data = bytes(range(256)) * 10_000
    assert b"".join(chunks(io.BytesIO(data))) == data


def test_a_stream_that_breaks_is_a_read_error() -> None:
    with pytest.raises(ReadError, match="stdin: cannot be read beyond byte 20: Input/output error"):
        list(chunks(Breaks()))  # type: ignore[arg-type]


def test_a_process_whose_stdin_was_closed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert stdin_stream() is None
