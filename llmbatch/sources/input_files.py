"""A path or glob in; the files it names as one input out: opened, decompressed, entered at an offset, identified.

The one place where an error of reading a file becomes a ``ReadError``.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START

_CHUNK = 1 << 20
_ENDS = 1 << 16  # bytes at each end of a file that go into its fingerprint
PUT_RIGHT = "put the file right (or fetch it anew) and run the same command again"
_FAILURES = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def _gzip(raw: BinaryIO) -> Any:
    import gzip

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


def expand(path: str) -> str:
    """The path with ``~`` filled in."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib would normalise what the user wrote


def suffix_of(path: str) -> str:
    """The suffix that tells the format: ``.jsonl`` for ``a.jsonl`` and ``a.jsonl.gz``; lower case."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in _DECOMPRESSORS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_files(path: str) -> list[Path]:
    """The files that a path or glob (``**`` included) names, sorted. Raises ``SourceError`` where there is none."""
    expanded = expand(path)
    if Path(expanded).is_file():
        return [Path(expanded)]
    if Path(expanded).is_fifo() or Path(expanded).is_char_device():
        raise SourceError(
            f"{path}: a pipe or device, which can be read only once; pipe it into stdin (-), or put it into a file"
        )
    if not glob.has_magic(expanded):
        if Path(expanded).is_dir():
            raise SourceError(f"{path}: a folder; name its files, for example {path.rstrip('/')}/*.jsonl")
        raise SourceError(
            f"{path}: no such file; looked in {Path(expanded).absolute().parent} "
            "(for a dataset on the Hugging Face hub set input.format=dataset)"
        )
    files = sorted(Path(name) for name in glob.glob(expanded, recursive=True) if Path(name).is_file())  # noqa: PTH207
    if not files:
        raise SourceError(f"{path}: the pattern matches no file; quote it, so that the shell leaves it alone")
    return files


@contextlib.contextmanager
def reading(name: str, tell: Callable[[], int]) -> Iterator[None]:
    """Turn an error of reading into a ``ReadError`` that names the file and the offset that ``tell`` gives."""
    try:
        yield
    except _FAILURES as error:
        raise read_error(name, tell(), error) from error


def read_error(name: str, offset: int, error: BaseException) -> ReadError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    lost = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.EACCES, errno.EISDIR}
    advice = "give a path that can be read" if lost else PUT_RIGHT
    return ReadError(f"{name}: cannot be read beyond byte {offset}: {said}; {advice}")


class _AsItWas(io.RawIOBase):
    """A file up to the size that it had when the input was opened: what is appended meanwhile, half a line perhaps, is not read."""

    def __init__(self, path: Path, size: int) -> None:
        self._file = io.FileIO(path)
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = max(0, self._size - self._file.tell())
        return int(self._file.readinto(memoryview(buffer)[:room]) or 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset, whence = offset + min(self._size, self._file.seek(0, io.SEEK_END)), io.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


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


class InputFiles:
    """Files, or stdin, as one input of bytes. One at a time is open for reading rows."""

    def __init__(self, paths: Sequence[Path], stdin: BinaryIO | None = None) -> None:
        self.paths = tuple(paths)
        self._stdin = stdin
        self._opened: _Opened | None = None
        self._packing: dict[int, float] = {}  # by compressed file that was read: bytes on disk for a byte of content
        self._sizes: tuple[int, ...] | None = None
        self._passed: _Passed | None = None

    @classmethod
    def named(cls, path: str) -> InputFiles:
        """The files that the path names, seen to hold something; stdin for ``-``. Raises ``SourceError``."""
        if path == "-":
            return cls((Path("-"),), sys.stdin.buffer)
        files = cls(find_files(path))
        if not sum(files.sizes):
            raise SourceError(
                f"{path}: the file is empty" if len(files.paths) == 1 else f"{path}: all of its files are empty"
            )
        return files

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes on disk of each file, as it was at the first look: no more of it is read."""
        if self._sizes is None:
            try:
                self._sizes = tuple(path.stat().st_size for path in self.paths)
            except OSError as error:
                raise read_error(str(error.filename), 0, error) from error
        return self._sizes

    def name(self, number: int) -> str:
        return "stdin" if self._stdin is not None else str(self.paths[number])

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
                raw = stack.enter_context(self._raw(number))
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

    def _raw(self, number: int) -> BinaryIO:
        return io.BufferedReader(_AsItWas(self.paths[number], self.sizes[number]), _CHUNK)

    def _content(self, number: int, raw: BinaryIO) -> tuple[Any, BinaryIO]:
        """(what decompresses a file, or ``None`` for a plain one, its content)."""
        decompress = _DECOMPRESSORS.get(_compression(self.paths[number], raw))
        if decompress is None:
            return None, raw
        unpacked = decompress(raw)
        return unpacked, io.BufferedReader(_Unpacked(unpacked), _CHUNK)

    def fingerprint(self) -> list[dict[str, Any]]:
        """As ``Source.fingerprint``."""
        if self._stdin is not None:
            return [{"file": "-"}]
        entries = []
        for number, path in enumerate(self.paths):
            with reading(str(path), lambda: 0), self._raw(number) as raw:
                state = path.stat()
                size = raw.seek(0, io.SEEK_END)
                raw.seek(0)
                ends = hashlib.sha256(raw.read(_ENDS))
                raw.seek(max(0, size - _ENDS))
                ends.update(raw.read(_ENDS))
            entries.append({"file": str(path), "size": size, "mtime_ns": state.st_mtime_ns, "ends": ends.hexdigest()})
        return entries

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """sha256 of the content between two cursors, one file after another; ``None`` if a file is gone.

        What follows on the last digest is read on from there, so that of a compressed file nothing is decompressed twice for it.
        """
        if self._stdin is not None:
            return None
        sha256 = hashlib.sha256()
        last = len(self.paths) - 1 if stop is None else stop.file
        if last >= len(self.paths):
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
                unpacked, stream = self._content(number, self._raw(number))
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
        if self._stdin is not None or not (total := sum(self.sizes)):
            return None
        before = sum(self.sizes[: cursor.file])
        if cursor.offset and cursor.file < len(self.paths):
            self._measure()
            compressed = self.paths[cursor.file].suffix.lower() in _DECOMPRESSORS
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


def _compression(path: Path, raw: Any) -> str:
    """The suffix of the compression, by the file's name or its first bytes; ``""`` for none."""
    if (suffix := path.suffix.lower()) in _DECOMPRESSORS:
        return suffix
    head = raw.read(6)
    raw.seek(0)
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")


class FileSource:
    """A source over files whose format is a function that reads rows from a place on."""

    def __init__(self, files: InputFiles, read: Callable[[InputFiles, Cursor], Iterator[Row]]) -> None:
        self._files = files
        self._read = read

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return self._read(self._files, start)

    def locate(self, cursor: Cursor) -> str:
        return f"{self._files.name(cursor.file)}:{cursor.line + 1}"

    def fingerprint(self) -> list[dict[str, Any]]:
        return self._files.fingerprint()

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        return self._files.digest(start, stop)

    def progress(self, cursor: Cursor) -> float | None:
        return self._files.progress(cursor)
