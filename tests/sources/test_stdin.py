from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmbatch.core.errors import ReadError, WriteError
from llmbatch.sources.stdin import spool


class Breaks(io.RawIOBase):
    """A stream that gives some bytes and then fails, as a pipe from a dead machine does."""

    def __init__(self) -> None:
        self.left = 3

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if not self.left:
            raise OSError(5, "Input/output error")
        return b"x" * 10


def test_the_copy_has_the_same_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    assert spool(io.BytesIO(data), tmp_path / "a") == len(data)
    assert (tmp_path / "a").read_bytes() == data


def test_a_stream_that_breaks_is_a_read_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="stdin: cannot be read beyond byte 20: Input/output error"):
        spool(Breaks(), tmp_path / "a")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="missing"):
        spool(io.BytesIO(b"x"), tmp_path / "missing" / "a")
