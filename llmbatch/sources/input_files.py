"""A path or glob in; the files it names as one input out: opened, decompressed, entered at an offset, identified.

The one place where an error of reading a file becomes a ``ReadError``.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.file_list import File
from llmbatch.sources.places import Found, LocalFile, LocalPlace, Place, Together, as_text, called, find_here, is_url

_CHUNK = 1 << 20
_LITTLE = 1 << 14
_ENDS = 1 << 16  # bytes at each end of a file that go into its fingerprint
_AT_A_TIME = 16  # paths elsewhere that are looked for
_LISTED = 1_000  # files that have an entry each in it
PUT_RIGHT = "put the file right (or fetch it anew) and run the same command again"
_FAILURES = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def _gzip(raw: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=raw, mode="rb")


def _bz2(raw: BinaryIO) -> Any:
    import bz2

    return bz2.BZ2File(raw)


def _xz(raw: BinaryIO) -> Any:
    return lzma.LZMAFile(raw)


def _zstd(raw: BinaryIO) -> Any:
    from llmbatch.sources.zstd import ZstdFrames

    return ZstdFrames(raw)


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {".gz": _gzip, ".zst": _zstd, ".bz2": _bz2, ".xz": _xz}
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz"}


def suffix_of(path: str) -> str:
    """The suffix that tells the format: ``.jsonl`` for ``a.jsonl`` and ``a.jsonl.gz``; lower case."""
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    suffixes = path.rpartition("/")[2].lstrip(".").lower().split(".")[1:]
    if suffixes and f".{suffixes[-1]}" in _DECOMPRESSORS:
        suffixes.pop()
    return f".{suffixes[-1]}" if suffixes and suffixes[-1] else ""


def find_input(path: str, options: Mapping[str, Any], *, folders: bool = False) -> Found:
    """The files that a path, glob or URL names, here or elsewhere; see ``find_here``. Raises ``SourceError``."""
    if not is_url(path):
        return find_here(path, folders=folders)
    from llmbatch.sources.remote import find_there

    return find_there(path, options, folders=folders)


def _find_all(paths: Sequence[str], options: Mapping[str, Any]) -> list[Place]:
    """The places of several paths, in their order; of those elsewhere several are looked for at a time."""
    if not any(map(is_url, paths)):
        return [find_input(path, options).place for path in paths]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return [found.place for found in pool.map(lambda path: find_input(path, options), paths)]


def _in_one(places: Sequence[Place]) -> Place:
    if isinstance(places[0], LocalPlace):
        return Together(places)
    from llmbatch.sources.remote import in_one

    return in_one(places) or Together(places)


@contextlib.contextmanager
def reading(name: str, tell: Callable[[], int]) -> Iterator[None]:
    """Turn an error of reading into a ``ReadError`` that names the file and the offset that ``tell`` gives."""
    try:
        yield
    except _FAILURES as error:
        raise read_error(name, tell(), error) from error


def read_error(name: str, offset: int, error: BaseException) -> ReadError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    advice = PUT_RIGHT
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        advice = "give a path that can be read"
    elif isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and is_url(name):
        advice = "run the same command again once it can be reached"
    return ReadError(f"{name}: cannot be read beyond byte {offset}: {said}; {advice}")


class _Unpacked(io.RawIOBase):
    """What a decompressor has ready, and no more at a time: at damage, the rows before it were handed out."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._inner.readinto1(buffer))


class _Opened(NamedTuple):
    number: int
    raw: BinaryIO  # as it lies on disk
    unpacked: Any  # what decompresses it


class _Passed(NamedTuple):
    """How far the content of a compressed file was passed through, for the digests of what follows on one another."""

    number: int
    stream: BinaryIO
    at: int


class _Stdin:
    """The place of what comes through stdin: one file, of which nothing is known."""

    def __init__(self) -> None:
        self.folder, self.mark = "", "mtime_ns"
        self.files: Sequence[File] = (File("-", 0, 0),)

    def raw(self, number: int) -> io.RawIOBase:
        raise io.UnsupportedOperation(f"stdin is read once, and has no file {number}")

    def only(self, files: Iterable[File]) -> Place:  # noqa: ARG002
        return self


class InputFiles:
    """Files, or stdin, as one input of bytes. One at a time is open for reading rows."""

    def __init__(self, place: Place, stdin: BinaryIO | None = None) -> None:
        self.place = place
        self.sizes: Sequence[int] = array("q", (file.size for file in place.files))
        """Bytes on disk of each file, as it was at the first look: no more of it is read."""
        self._before = array("q", accumulate(self.sizes, initial=0))
        self._stdin = stdin
        self._opened: _Opened | None = None
        self._packing: dict[int, float] = {}  # by compressed file that was read: bytes on disk for a byte of content
        self._passed: _Passed | None = None
        self._ends: dict[int, str] = {}

    @classmethod
    def named(cls, path: str, options: Mapping[str, Any]) -> InputFiles:
        """The files that the path names, seen to hold something; stdin for ``-``. Raises ``SourceError``."""
        if path == "-":
            return cls(_Stdin(), sys.stdin.buffer)
        files = cls(find_input(path, options).place)
        if not files._before[-1]:
            raise SourceError(
                f"{path}: the file is empty" if len(files) == 1 else f"{path}: all of its files are empty"
            )
        return files

    @classmethod
    def of(cls, settings: SourceSettings) -> InputFiles:
        """Those of ``path``, and behind them those of ``more``. Raises as ``named``."""
        if not settings.more:
            return cls.named(settings.path, settings.storage_options)
        paths = (settings.path, *settings.more)
        if "-" in paths:
            raise SourceError("input.more: stdin is read alone; put it into a file")
        places = _find_all(paths, settings.storage_options)
        if len({place.mark for place in places}) > 1:
            raise SourceError("input.more: files here and files elsewhere cannot be one input: copy them to one place")
        files = cls(_in_one(places))
        if not files._before[-1]:
            raise SourceError(f"{settings.path}, ...: all of the {len(files):,} files are empty")
        return files

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, number: int) -> str:
        """What a file is called in messages."""
        return "stdin" if self._stdin is not None else as_text(self.path(number))

    def called(self, number: int) -> str:
        """What a file is called in records, however the input was named: see ``places.called``."""
        return "stdin" if self._stdin is not None else self._called(self.place.files[number].name)

    @cached_property
    def _called(self) -> Callable[[str], str]:
        return called(self.place)

    def path(self, number: int) -> str:
        return self.place.folder + self.place.files[number].name

    def names(self) -> list[str]:
        """The names of all files below the folder that they share."""
        return [file.name for file in self.place.files]

    @contextlib.contextmanager
    def open(self, number: int, offset: int = 0) -> Iterator[BinaryIO]:
        """The decompressed content of one file from a byte offset on. Raises ``ReadError``.

        A plain file is entered by seek; of a compressed one what lies before is decompressed again.
        """
        if self._stdin is not None:
            if offset:
                raise ReadError("stdin can only be read once, from its start; put it into a file to go on later")
            yield self._stdin
            return
        name = self.name(number)
        with contextlib.ExitStack() as stack:
            with reading(name, lambda: 0):
                raw = stack.enter_context(self.raw(number))
                unpacked, content = self._content(number, raw)
                stream = raw if unpacked is None else stack.enter_context(content)
            reached = _seek(name, stream, offset) if unpacked is None else _skip(name, stream, offset)
            if reached < offset:
                raise ReadError(f"{name}: ends at byte {reached}, and {offset} bytes were read before: it was cut off")
            self._opened = None if unpacked is None else _Opened(number, raw, unpacked)
            try:
                yield stream
            finally:
                self._measure()
                self._opened = None

    @contextlib.contextmanager
    def open_to_seek(self, number: int) -> Iterator[BinaryIO]:
        """A plain file of which single lines are read: little is read at a time. Raises ``ReadError``."""
        name = self.name(number)
        with reading(name, lambda: 0):
            stream = io.BufferedReader(self.place.raw(number), _LITTLE)
        with stream:
            yield stream

    @contextlib.contextmanager
    def open_to_pick(self, number: int) -> Iterator[Callable[[int, int], bytes]]:
        """What reads so many bytes from an offset on, of a file of an input that is ``plain``. Raises ``ReadError``."""
        with reading(self.name(number), lambda: 0):
            file = self.place.raw(number)
        assert isinstance(file, LocalFile)  # noqa: S101 - for the type checker
        with file:
            yield file.read_at

    @cached_property
    def plain(self) -> bool:
        """Whether all of them are files of this machine that are not compressed: any byte of them can be gone to."""
        if self._stdin is not None or is_url(self.place.folder):
            return False
        for number in range(len(self)):
            with reading(self.name(number), lambda: 0), self.raw(number) as raw:
                if is_url(self.path(number)) or _compression(self.place.files[number].name, raw):
                    return False
        return True

    def raw(self, number: int) -> BinaryIO:
        """The bytes of a file as they lie there. Opening and reading raise ``OSError``."""
        return io.BufferedReader(self.place.raw(number), _CHUNK)

    def _content(self, number: int, raw: BinaryIO) -> tuple[Any, BinaryIO]:
        """(what decompresses a file, or ``None`` for a plain one, its content)."""
        decompress = _DECOMPRESSORS.get(_compression(self.place.files[number].name, raw))
        if decompress is None:
            return None, raw
        unpacked = decompress(raw)
        return unpacked, io.BufferedReader(_Unpacked(unpacked), _CHUNK)

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        """As ``Source.fingerprint``."""
        if self._stdin is not None:
            return [{"file": "-"}]
        count = len(self) if files is None else min(files, len(self))
        if count <= _LISTED:
            return [self._entry(number) for number in range(count)]
        return [self._together(count - 1), self._entry(count - 1)]

    def _entry(self, number: int) -> dict[str, Any]:
        file, mark = self.place.files[number], self.place.mark
        entry = {"file": self.name(number), "size": file.size, mark: file.changed}
        if mark != "etag":
            if number not in self._ends:
                self._ends[number] = self._digest_of_ends(number)
            entry["ends"] = self._ends[number]
        return entry

    def _together(self, count: int) -> dict[str, Any]:
        """One entry for the first so many files: of very many, opening each would take minutes where they lie on a network."""
        files = self.place.files[:count]
        names, changes = hashlib.sha256(), hashlib.sha256()
        for file in files:
            names.update(f"{file.name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
            changes.update(f"{file.changed}\0".encode())
        return {
            "files": count, "first": as_text(files[0].name), "last": as_text(files[-1].name), "bytes": self._before[count],
            "names": names.hexdigest(), f"{self.place.mark.removesuffix('_ns')}s": changes.hexdigest(),
        }  # fmt: skip

    def _digest_of_ends(self, number: int) -> str:
        with reading(self.name(number), lambda: 0), self.raw(number) as raw:
            size = raw.seek(0, io.SEEK_END)
            raw.seek(0)
            ends = hashlib.sha256(raw.read(_ENDS))
            raw.seek(max(0, size - _ENDS))
            ends.update(raw.read(_ENDS))
        return ends.hexdigest()

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """sha256 of the content between two cursors, one file after another; ``None`` if a file is gone.

        What follows on the last digest is read on from there, so that of a compressed file nothing is decompressed twice for it.
        """
        if self._stdin is not None:
            return None
        sha256 = hashlib.sha256()
        last = len(self) - 1 if stop is None else stop.file
        if last >= len(self):
            return None
        for number in range(start.file, last + 1):
            end = stop.offset if stop is not None and number == stop.file else None
            for chunk in self._passing(number, start.offset if number == start.file else 0, end):
                sha256.update(chunk)
        return sha256.hexdigest()

    def _passing(self, number: int, begin: int, end: int | None) -> Iterator[bytes]:
        """The content of a file from one byte to another, or to its end."""
        name, passed, self._passed = self.name(number), self._passed, None
        at = begin
        with reading(name, lambda: at):
            if passed is not None and passed.number == number and passed.at <= begin:
                stream, plain = passed.stream, False
                _skip(name, stream, begin - passed.at)
            else:
                unpacked, stream = self._content(number, self.raw(number))
                plain = unpacked is None
                if plain:
                    stream.seek(begin)
                else:
                    _skip(name, stream, begin)
            while chunk := stream.read(_CHUNK if end is None else min(_CHUNK, end - at)):
                at += len(chunk)
                yield chunk
            if plain:
                stream.close()
            else:
                self._passed = _Passed(number, stream, at)

    def progress(self, cursor: Cursor) -> float | None:
        """As ``Source.progress``; within a compressed file by what of it was unpacked so far."""
        if self._stdin is not None or not (total := self._before[-1]):
            return None
        before = self._before[min(cursor.file, len(self))]
        if cursor.offset and cursor.file < len(self):
            self._measure()
            compressed = Path(self.place.files[cursor.file].name).suffix.lower() in _DECOMPRESSORS
            packing = self._packing.get(cursor.file, None if compressed else 1.0)
            if packing is None:
                return None
            before += min(int(cursor.offset * packing), self.sizes[cursor.file])
        return min(1.0, before / total)

    def _measure(self) -> None:
        """Note how well the compressed file that is open packs, from how far it was read."""
        if (opened := self._opened) is not None:
            with contextlib.suppress(ValueError):  # closed meanwhile by the thread that reads
                if content := opened.unpacked.tell():
                    self._packing[opened.number] = opened.raw.tell() / content


def _seek(name: str, stream: BinaryIO, offset: int) -> int:
    """Go to the offset, or to the end if that comes first; where it went."""
    with reading(name, lambda: offset):
        return stream.seek(min(offset, stream.seek(0, io.SEEK_END)))


def _skip(name: str, stream: BinaryIO, offset: int) -> int:
    """As ``_seek``, by reading."""
    reached = 0
    with reading(name, lambda: reached):
        while reached < offset and (chunk := stream.read(min(offset - reached, _CHUNK))):
            reached += len(chunk)
    return reached


def _compression(name: str, raw: Any) -> str:
    """The suffix of the compression, by the file's name or its first bytes; ``""`` for none."""
    if (suffix := Path(name).suffix.lower()) in _DECOMPRESSORS:
        return suffix
    head = raw.read(6)
    raw.seek(0)
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")
