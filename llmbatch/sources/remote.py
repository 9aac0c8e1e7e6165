"""Files that lie elsewhere, by URLs that fsspec knows: found, read in ranges, and written."""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from llmbatch.core.errors import SourceError, UsageError
from llmbatch.core.remote_files import RemoteError
from llmbatch.core.remote_files import file_system as _file_system
from llmbatch.core.remote_files import is_http as _is_http
from llmbatch.core.remote_files import protocols as _protocols
from llmbatch.core.remote_files import translated as _translated
from llmbatch.sources.file_list import File
from llmbatch.sources.places import Found, Place, by_parts, fixed_part, shared_folder

_BLOCK = 1 << 20  # bytes that are fetched and kept as one, where the file is so long
_KEPT = (
    64 << 20
)  # bytes of blocks; a window's digest is taken of what was just read, and as a rule fetches nothing again
_OVERHEAD = 1 << 10  # bytes that a block counts besides its own
_RUN = 8  # blocks that are fetched as one where a file is read on and on
_TOGETHER = 32  # small files that are fetched at the same time
_ETAGS = ("ETag", "etag", "md5Hash", "content_md5")  # what stores call their mark of an object's content
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created", "Last-Modified")
# a put of these stores is there whole or not at all; of others a file is written under another name, and renamed
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "memory"})
# of these the first part of a path is a bucket, which nobody makes by writing to it
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
# the library's own choice is ten parts of 50 MB in memory at a time
_PUT_OPTIONS: Mapping[str, Mapping[str, Any]] = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}


def find_there(url: str, options: Mapping[str, Any], *, folders: bool = False) -> Found:
    """The files that a URL or a pattern names, sorted; with ``folders`` a folder stands for all files below it.

    Raises ``SourceError`` where there is none, or the place cannot be reached.
    """
    files, path = _file_system(url, options, SourceError)
    try:
        with _translated():
            files.invalidate_cache()
            base, found, is_folder = _look(files, path, folders=folders)
    except FileNotFoundError as error:
        _see_bucket(files, path, url, SourceError)
        raise SourceError(f"{url}: no such file, or it cannot be reached: {error}{_or_download(url)}") from error
    except OSError as error:
        raise SourceError(f"{url}: cannot be looked at: {error}{_or_download(url)}") from error
    if is_folder and not folders:
        raise SourceError(f"{url}: a folder; name its files, for example {url.rstrip('/')}/*.jsonl")
    if not found:
        _see_bucket(files, path, url, SourceError)
        what = "there is no file in it" if is_folder else "the pattern matches no file"
        raise SourceError(f"{url}: {what}")
    hidden = [name for name in found if is_folder and any(part.startswith(".") for part in name.split("/"))]
    names = sorted(found.keys() - hidden, key=by_parts)
    if unknown := next((name for name in names if found[name].get("size") is None), None):
        raise SourceError(
            f"{url}: it is not said how long {unknown} is, and llmbatch reads files in ranges; download it first"
        )
    return Found(_place(files, base, [(name, found[name]) for name in names]), is_folder, len(hidden))


def in_one(places: Sequence[Place]) -> Place | None:
    """All files of these places as those of one, where they are of one file system; else ``None``.

    So small ones that follow each other are fetched together, and what is kept of what was fetched is bounded for all of them.
    """
    if not all(isinstance(place, _RemotePlace) for place in places):
        return None
    remote: Any = places
    file_system = remote[0].file_system
    if any(place.file_system is not file_system for place in remote):
        return None
    found = [(place.base + file.name, file) for place in remote for file in place.files]
    base = shared_folder([name for name, _ in found])
    files = [file._replace(name=name.removeprefix(base)) for name, file in found]
    return _RemotePlace(file_system, base, files, remote[0].mark)


def _place(file_system: Any, base: str, found: Sequence[tuple[str, Mapping[str, Any]]]) -> _RemotePlace:
    """``found`` are names below ``base`` with what the file system says of them."""
    etags = [_mark(said, _ETAGS) for _, said in found]
    marks = etags if all(etags) else [_mark(said, _TIMES) for _, said in found]
    files = [File(name, int(said["size"]), mark) for (name, said), mark in zip(found, marks, strict=True)]
    return _RemotePlace(file_system, base, files, "etag" if all(etags) else "mtime_ns")


def _mark(said: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(said[key]) for key in keys if said.get(key)), "")


def _look(files: Any, path: str, *, folders: bool) -> tuple[str, dict[str, dict[str, Any]], bool]:
    """(folder, what is said of each file below it by its name there, whether the path is that folder)."""
    magic = has_magic(path.replace("?", "")) if _is_http(path) else has_magic(path)
    if magic and (matching := _plain_files(files.glob(path, detail=True))):
        base = fixed_part(path)
        return base, {name.removeprefix(base): said for name, said in matching.items()}, False
    try:
        said = files.info(path)
    except FileNotFoundError:
        if magic:
            return path, {}, False
        raise
    if said["type"] != "directory":
        base = path[: len(path) - len(path.rpartition("/")[2])]
        return base, {path.removeprefix(base): said}, False
    base = path if not path or path.endswith("/") else f"{path}/"
    below = _plain_files(files.find(path, detail=True)) if folders else {}
    return base, {name.removeprefix(base): said for name, said in below.items()}, True


def _plain_files(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without folders, and what some stores have in place of folders: empty objects whose names end in a slash."""
    return {name: said for name, said in found.items() if said["type"] == "file" and not name.endswith("/")}


def check_target(url: str, options: Mapping[str, Any], error: type[UsageError]) -> None:
    """See that there is a library for the URL, and that its bucket is there and can be reached. Raises ``error``.

    Whether it may be written to shows only by writing.
    """
    files, path = _file_system(url, options, error)
    _see_bucket(files, path, url, error)


def _see_bucket(files: Any, path: str, url: str, error: type[UsageError]) -> None:
    """Raises ``error`` where it is not there or cannot be reached."""
    if _protocols(files)[0] not in _BUCKETS:
        return
    bucket = path.partition("/")[0]
    try:
        with _translated():
            files.info(bucket)
    except PermissionError:
        pass  # who may write to a bucket need not be allowed to look at it
    except FileNotFoundError as missing:
        raise error(f"{url}: there is no bucket {bucket}: {missing}; make it, or look at the name") from missing
    except OSError as wrong:
        raise error(
            f"{url}: the bucket {bucket} cannot be reached: {wrong}; look at the endpoint, the network and the credentials"
        ) from wrong


def put(file: Path, url: str, options: Mapping[str, Any]) -> None:
    """Copy a file to a URL, where it is whole or not at all. Raises ``OSError``."""
    files, path = _file_system(url, options, UsageError)
    protocol = _protocols(files)[0]
    with _translated():
        if protocol in _OBJECTS:
            files.put_file(str(file), path, **_PUT_OPTIONS.get(protocol, {}))
        else:
            folder, _, name = path.rpartition("/")
            files.makedirs(folder, exist_ok=True)
            half = f"{folder}/.{name}.part"
            files.put_file(str(file), half)
            there, here = files.info(half)["size"], file.stat().st_size
            if there != here:
                raise RemoteError(f"{there:,} bytes arrived of {here:,}")
            files.mv(half, path)


def remove(url: str, options: Mapping[str, Any]) -> None:
    """Remove a file, if it is there. Raises ``OSError``."""
    files, path = _file_system(url, options, UsageError)
    with _translated(), contextlib.suppress(FileNotFoundError):
        files.rm_file(path)


def is_concurrent(url: str, options: Mapping[str, Any]) -> bool:
    """Whether several files may be put at the same time."""
    return bool(_file_system(url, options, UsageError)[0].async_impl)


class _RemotePlace:
    """Files of one file system elsewhere. Implements ``Place``; may be read by several threads."""

    def __init__(self, file_system: Any, base: str, files: Sequence[File], mark: str) -> None:
        """``base`` is the folder as the file system itself has it."""
        self.folder = (
            file_system.unstrip_protocol(base).rstrip("/") + "/" if base else f"{_protocols(file_system)[0]}://"
        )
        self.files = files
        self.mark = mark
        self.file_system = file_system
        self.base = base
        self._lock = threading.RLock()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._kept = 0
        self._last = (-2, -2)  # file and block that were asked for last
        self._run = 1

    def raw(self, number: int) -> io.RawIOBase:
        return _RemoteFile(self, number)

    def only(self, files: Iterable[File]) -> _RemotePlace:
        return _RemotePlace(self.file_system, self.base, list(files), self.mark)

    def block(self, number: int, block: int) -> bytes:
        """One block of a file. Raises ``OSError``."""
        with self._lock:
            if (number, block) not in self._blocks:
                self._keep(self._fetch(number, block))
            self._blocks.move_to_end((number, block))
            self._last = (number, block)
            return self._blocks[number, block]

    def _keep(self, blocks: Mapping[tuple[int, int], bytes]) -> None:
        """Keep what was fetched, the first of it for certain, in place of what was not asked for longest."""
        for key in reversed(list(blocks)):
            if (before := self._blocks.pop(key, None)) is not None:
                self._kept -= len(before) + _OVERHEAD
            self._blocks[key] = blocks[key]
            self._kept += len(blocks[key]) + _OVERHEAD
        while self._kept > _KEPT:
            self._kept -= len(self._blocks.popitem(last=False)[1]) + _OVERHEAD

    def _fetch(self, number: int, block: int) -> dict[tuple[int, int], bytes]:
        """A block, and what is likely to be asked for next: more of the file, or small files that follow."""
        if block == 0 and self.files[number].size <= _BLOCK:
            return self._fetch_small(number)
        self._run = min(2 * self._run, _RUN) if self._last == (number, block - 1) else 1
        size = self.files[number].size
        start, end = block * _BLOCK, min((block + self._run) * _BLOCK, size)
        with _translated():
            content = self.file_system.cat_file(self._path(number), start=start, end=end)
            if end == size:
                self._is_as_it_was(number)
        self._is_whole(content, end - start)
        return {(number, block + i): content[i * _BLOCK : (i + 1) * _BLOCK] for i in range(-(-len(content) // _BLOCK))}

    def _fetch_small(self, number: int) -> dict[tuple[int, int], bytes]:
        numbers, room = [number], self._run_of_small(number)
        while len(numbers) < room and (following := numbers[-1] + 1) < len(self.files):
            if self.files[following].size > _BLOCK:
                break
            numbers.append(following)
        with _translated():
            if len(numbers) == 1:
                contents = [self.file_system.cat_file(self._path(number), start=0, end=self.files[number].size)]
            else:
                sizes = [self.files[n].size for n in numbers]
                paths = [self._path(n) for n in numbers]
                contents = self.file_system.cat_ranges(paths, [0] * len(paths), sizes, on_error="return")
            if isinstance(contents[0], BaseException):
                raise contents[0]
        self._is_whole(contents[0], self.files[number].size)
        fetched = zip(numbers, contents, strict=True)  # what failed of the others is asked for again in its turn
        return {(n, 0): c for n, c in fetched if isinstance(c, bytes) and len(c) == self.files[n].size}

    def _run_of_small(self, number: int) -> int:
        """How many small files are fetched together: more and more, where one after another is asked for."""
        self._run = min(2 * self._run, _TOGETHER) if self._last[0] == number - 1 else 1
        return self._run

    def _path(self, number: int) -> str:
        return self.base + self.files[number].name

    def _is_whole(self, content: bytes, length: int) -> None:
        if len(content) != length:
            raise RemoteError(
                f"{len(content):,} bytes came where {length:,} were asked for: the file was changed meanwhile, or its server "
                f"cannot give a part of a file{_or_download(self.folder)}"
            )

    def _is_as_it_was(self, number: int) -> None:
        """That a file that is fetched in several parts is still the same at its end."""
        if self.mark != "etag":
            return
        self.file_system.invalidate_cache()
        if _mark(self.file_system.info(self._path(number)), _ETAGS) != self.files[number].changed:
            raise RemoteError("it was changed while it was read")


class _RemoteFile(io.RawIOBase):
    """A file of a remote place, read in blocks."""

    def __init__(self, place: _RemotePlace, number: int) -> None:
        self._place = place
        self._number = number
        self._size = place.files[number].size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            return 0
        block, skip = divmod(self._at, _BLOCK)
        content = self._place.block(self._number, block)[skip : skip + len(buffer)]
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _or_download(url: str) -> str:
    return "; or download the file first" if _is_http(url) else ""
