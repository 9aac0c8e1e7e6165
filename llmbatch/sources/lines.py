"""A stream of bytes in; its lines out, each of bounded length and with the place where it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from llmbatch.sources.input_files import InputFiles, reading

MAX_LINE = 64 << 20  # bytes; what is longer is no row, and would cost memory many times its length
_BOM = b"\xef\xbb\xbf"


class Lines:
    """Iterates once over the lines of a stream; ``start``, ``end``, ``number`` and ``raw`` tell of the line at hand.

    A line longer than ``MAX_LINE`` comes as a few bytes that no format takes (a NUL), with ``too_long`` set.
    A byte order mark at the start of the file is not part of its line. Raises ``ReadError``.
    """

    __slots__ = ("_blank", "_name", "_stream", "end", "number", "raw", "start", "too_long")

    def __init__(self, stream: BinaryIO, name: str, offset: int = 0, before: int = 0, *, blank: bool = False) -> None:
        """``before`` counts the lines before ``offset``; ``blank`` says whether lines of white space come too."""
        self._stream = stream
        self._name = name
        self._blank = blank
        self.start = self.end = offset
        self.number = before  # of the line at hand, counted from 1
        self.raw = b""
        self.too_long = False

    def __iter__(self) -> Iterator[bytes]:
        readline, blank = self._stream.readline, self._blank
        with reading(self._name, lambda: self.end):
            while raw := readline(MAX_LINE):
                self.start = self.end
                self.end += len(raw)
                self.number += 1
                if not self.start and raw.startswith(_BOM):
                    raw = raw[len(_BOM) :]
                if self.end - self.start == MAX_LINE and not raw.endswith(b"\n"):
                    self._skip_rest()
                    self.too_long = True
                    self.raw = raw[:400]
                    yield b"\0"
                elif blank or (raw and not raw.isspace()):
                    self.too_long = False
                    self.raw = raw
                    yield raw

    def _skip_rest(self) -> None:
        while rest := self._stream.readline(MAX_LINE):
            self.end += len(rest)
            if rest.endswith(b"\n"):
                return


def first_line(files: InputFiles) -> bytes:
    """The first line of the files that is not blank, or ``b""``. Raises ``ReadError``."""
    for number in range(len(files)):
        with files.open(number) as stream:
            for line in Lines(stream, files.name(number)):
                return line
    return b""
