"""Files as they were at the first look, one by one, in; the same as a sequence that holds them packed out.

A file takes 24 bytes and those of its name, where as an object with a text and three numbers it takes some 300: an input may have
millions of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload


class File(NamedTuple):
    """One file of an input, as it was at the first look."""

    name: str  # below the folder of its place
    size: int  # bytes; no more of it is read
    changed: int | str  # differs where the file is another: its time in nanoseconds, or an object store's own mark


class FileList(Sequence[File]):
    """Files of this machine, whose ``changed`` are times. It does not change, and may be read by several threads."""

    def __init__(self, files: Iterable[File]) -> None:
        names = bytearray()
        self._ends, self._sizes, self._times = array("q", [0]), array("q"), array("q")
        for name, size, changed in files:
            names += name.encode("utf-8", _ANY)
            self._ends.append(len(names))
            self._sizes.append(size)
            self._times.append(int(changed))
        self._names = bytes(names)

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, at: int) -> File: ...

    @overload
    def __getitem__(self, at: slice) -> list[File]: ...

    def __getitem__(self, at: int | slice) -> File | list[File]:
        numbers = range(len(self))[at]
        return self._file(numbers) if isinstance(numbers, int) else list(map(self._file, numbers))

    def __iter__(self) -> Iterator[File]:
        return map(self._file, range(len(self)))

    def _file(self, number: int) -> File:
        name = self._names[self._ends[number] : self._ends[number + 1]].decode("utf-8", _ANY)
        return File(name, self._sizes[number], self._times[number])


_ANY = "surrogatepass"  # file systems know names that are no text, which Python tells with halves of surrogate pairs

__all__ = ["File", "FileList"]
