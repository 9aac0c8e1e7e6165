"""A stream of bytes in; its lines out, each of bounded length and with the place where it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor
from llmbatch.sources.input_files import InputFiles, reading

MAX_LINE = 64 << 20  # bytes; what is longer is no row, and would cost memory many times its length
_BOM = b"\xef\xbb\xbf"
_LOOK, _LONGEST_LOOK = 1 << 12, 1 << 16  # bytes that are read of a line at once, before it is known how long it is


class Lines:
    """Iterates once over the lines of a stream; ``start``, ``end``, ``number`` and ``raw`` tell of the line at hand.

    A line longer than ``MAX_LINE`` comes as a few bytes that no format takes (a NUL), with ``too_long`` set.
    A byte order mark at the start of the file is not part of its line. Raises ``ReadError``.
    """

    __slots__ = ("_blank", "_name", "_stream", "end", "number", "raw", "start", "too_long")
    cursor: Cursor | None = None  # which row a line is, is told by counting

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


ReadAt = Callable[[int, int], bytes]
"""So many bytes of a file from an offset on, fewer where it ends."""


class PickedLines:
    """As ``Lines``, of the lines that start at these cursors; ``cursor`` is that of the line at hand."""

    def __init__(self, read: ReadAt, name: str, cursors: Iterable[Cursor]) -> None:
        self._read = read
        self._name = name
        self._cursors = cursors
        self.cursor: Cursor | None = None
        self.start = self.number = 0
        self.raw = b""
        self.too_long = False

    def __iter__(self) -> Iterator[bytes]:
        read, look = self._read, _LOOK
        with reading(self._name, lambda: self.start):
            for cursor in self._cursors:
                self.cursor, self.start, self.number = cursor, cursor.offset, cursor.line + 1
                raw = read(cursor.offset, look)
                if end := raw.find(b"\n") + 1:
                    raw = raw[:end]
                else:
                    raw = self._longer(raw)
                    look = max(look, min(2 * len(raw), _LONGEST_LOOK))
                if not raw:
                    raise ReadError(
                        f"{self._name}: ends before byte {cursor.offset}, where a row was before: it was cut off"
                    )
                self.too_long = len(raw) == MAX_LINE and not raw.endswith(b"\n")
                if not cursor.offset and raw.startswith(_BOM):
                    raw = raw[len(_BOM) :]
                self.raw = raw[:400] if self.too_long else raw
                yield b"\0" if self.too_long else raw

    def _longer(self, raw: bytes) -> bytes:
        """The line at hand, of which a first look saw the beginning; at most ``MAX_LINE`` of it."""
        while len(raw) < MAX_LINE:
            more = self._read(self.start + len(raw), min(max(len(raw), _LOOK), MAX_LINE - len(raw)))
            end = more.find(b"\n") + 1
            raw += more[: end or None]
            if end or not more:
                break
        return raw


def first_line(files: InputFiles) -> bytes:
    """The first line of the files that is not blank, or ``b""``. Raises ``ReadError``."""
    for number in range(len(files)):
        with files.open(number) as stream:
            for line in Lines(stream, files.name(number)):
                return line
    return b""
