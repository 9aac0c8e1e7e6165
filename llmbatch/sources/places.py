"""A path or glob in; the files on this machine that it names, as they were at the first look, out. Those elsewhere: ``remote``."""

from __future__ import annotations

import glob
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llmbatch.core.errors import SourceError
from llmbatch.core.words import near_file
from llmbatch.sources.file_list import File, FileList

_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*(://|::.*://)"
)  # the second: one in another, zip://*.jsonl::s3://bucket/a.zip

_NAMES_LOOKED_AT = 10_000  # of a folder, for one that is near


class Place(Protocol):
    """Where the files of one input lie."""

    folder: str  # what stands before the files' names, as the user wrote it
    files: Sequence[File]
    mark: str  # what ``changed`` is: "etag", which differs where the content does, or "mtime_ns", which may not

    def raw(self, number: int) -> io.RawIOBase:
        """The bytes of a file, as they lie there. Opening and reading raise ``OSError``."""

    def only(self, files: Iterable[File]) -> Place:
        """The same place with some of its files alone."""


class Found(NamedTuple):
    """What a path names. ``is_folder``: all files below a folder, but for those that are hidden, of which there are so many."""

    place: Place
    is_folder: bool = False
    hidden: int = 0


def is_url(path: str) -> bool:
    """Whether the files lie elsewhere, and are named by a URL that fsspec knows."""
    return _URL.match(path) is not None


def expand(path: str) -> str:
    """The path with ``~`` filled in."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib would normalise what the user wrote


def find_here(path: str, *, folders: bool = False) -> Found:
    """The files that a path or glob (``**`` included) names, sorted; with ``folders`` a folder stands for all below it.

    Raises ``SourceError`` where there is none.
    """
    expanded = expand(path)
    if Path(expanded).is_file():
        file = str(Path(expanded))
        return Found(_seen([file], file[: len(file) - len(Path(file).name)]))
    if Path(expanded).is_fifo() or Path(expanded).is_char_device():
        raise SourceError(
            f"{path}: a pipe or device, which can be read only once; pipe it into stdin (-), or put it into a file"
        )
    if Path(expanded).is_dir():
        if folders:
            return _below(expanded)
        raise SourceError(f"{path}: a folder; name its files, for example {path.rstrip('/')}/*.jsonl")
    if not glob.has_magic(expanded):
        raise SourceError(_not_found(path, Path(expanded)))
    names = sorted(Path(name) for name in glob.glob(expanded, recursive=True) if Path(name).is_file())  # noqa: PTH207
    if not names:
        folder = fixed_part(expanded)
        if folder and not Path(folder).is_dir():
            raise SourceError(f"{path}: there is no folder {folder}; looked in {Path.cwd()}")
        raise SourceError(f"{path}: the pattern matches no file; quote it, so that the shell leaves it alone")
    return Found(_seen(map(str, names), fixed_part(str(Path(expanded)))))


def _not_found(path: str, file: Path) -> str:
    folder = file.absolute().parent
    if not folder.is_dir():
        return f"{path}: there is no folder {folder} (for a dataset on the Hugging Face hub set input.format=dataset)"
    names = [name for name in islice(os.listdir(folder), _NAMES_LOOKED_AT) if not name.startswith(".")]  # noqa: PTH208
    return (
        f"{path}: no such file{near_file(file.name, names)}; looked in {folder} "
        "(for a dataset on the Hugging Face hub set input.format=dataset)"
    )


def fixed_part(pattern: str) -> str:
    """The folder that all files of a pattern lie in, with its slash: what stands before the first part that varies."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return "".join(f"{part}/" for part in parts[:fixed])


def by_parts(name: str) -> list[str]:
    """How files are sorted: folder by folder."""
    return name.split("/")


def called(place: Place) -> Callable[[str], str]:
    """How records call the files of a place: below the folder that all of them share, however the input was named.

    A URL's query is left out: it may hold a signature, which is another one each time.
    """

    def whole(name: str) -> str:
        path = place.folder + name
        return path.partition("?")[0] if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - links stay as they are named

    ends = [end(whole(file.name) for file in place.files) for end in (min, max)]
    start = len(shared_folder(ends))
    return lambda name: as_text(whole(name)[start:])


def as_text(name: str) -> str:
    """A file's name as text: file systems know names that are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def suffixes(names: Iterable[str]) -> str:
    """The suffixes of files with how many have each, for a message."""
    counted = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    shown = [f"{suffix} {number:,}" for suffix, number in counted.most_common(5)]
    return ", ".join([*shown, "..."] if len(counted) > 5 else shown)


class LocalPlace:
    """Files on this machine."""

    mark = "mtime_ns"

    def __init__(self, folder: str, files: Sequence[File]) -> None:
        self.folder = folder
        self.files = files

    def raw(self, number: int) -> io.RawIOBase:
        file = self.files[number]
        return LocalFile(self.folder + file.name, file.size)

    def only(self, files: Iterable[File]) -> LocalPlace:
        return LocalPlace(self.folder, FileList(files))


class Together:
    """Files of several places one after another, each named whole but for the folder that all of them share."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._of = [(place, number) for place in places for number in range(len(place.files))]
        names = [place.folder + place.files[number].name for place, number in self._of]
        self.folder = shared_folder(names)
        self.mark = places[0].mark
        self.files: Sequence[File] = [
            place.files[number]._replace(name=name.removeprefix(self.folder))
            for (place, number), name in zip(self._of, names, strict=True)
        ]

    def raw(self, number: int) -> io.RawIOBase:
        place, its = self._of[number]
        return place.raw(its)

    def only(self, files: Iterable[File]) -> Place:
        kept = set(files)
        chosen = [at for at, file in zip(self._of, self.files, strict=True) if file in kept]
        return Together([place.only([place.files[number]]) for place, number in chosen])


def shared_folder(names: Sequence[str]) -> str:
    """The folder, with its slash, that all files lie in; of a URL at least what names the machine or the bucket."""
    folders = [name.split("/")[:-1] for name in (min(names), max(names))]
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(*folders, strict=False))
    return "".join(f"{part}/" for part, _ in shared)


def _seen(paths: Iterable[str], folder: str) -> LocalPlace:
    """The place of some files in a folder, which all their paths begin with. Raises ``SourceError``."""
    return LocalPlace(folder, FileList(_look_at(path, path.removeprefix(folder)) for path in paths))


def _look_at(path: str, name: str) -> File:
    try:
        state = os.stat(path)  # noqa: PTH116 - there may be very many
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; give a path that can be read") from error
    return File(name, state.st_size, state.st_mtime_ns)


def _below(folder: str) -> Found:
    base = folder if folder.endswith("/") else f"{folder}/"
    hidden = 0

    def seen() -> Iterator[File]:
        nonlocal hidden
        for name, is_hidden in _walk(base):
            if is_hidden:
                hidden += 1
            else:
                yield _look_at(base + name, name)

    return Found(LocalPlace(base, FileList(seen())), is_folder=True, hidden=hidden)


class _Folder(NamedTuple):
    """One that is being walked through."""

    name: str  # below the base, with its slash
    place: tuple[int, int]  # its device and its number there
    names: Iterator[str]  # of what is in it and was not passed yet, sorted
    folders: frozenset[str]  # those of them that are folders


def _walk(base: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is hidden) of all plain files below a folder, sorted as ``by_parts``; a hidden folder is named itself, and
    not entered.

    Links to folders are followed, but for those that lead back to a folder that they lie in. The names of one folder at a time are
    held, and of those above it.
    """
    entered: list[_Folder] = []
    below: _Folder | None = _entered(base, "", entered)
    while below is not None or entered:
        if below is not None:
            entered.append(below)
            below = None
        folder = entered[-1]
        name = next(folder.names, None)
        if name is None:
            entered.pop()
        elif name in folder.folders:
            below = _entered(base, f"{folder.name}{name}/", entered)
        else:
            yield folder.name + name, name.startswith(".")


def _entered(base: str, name: str, above: Sequence[_Folder]) -> _Folder | None:
    """A folder with what is in it; ``None`` for one that it lies in itself. Raises ``SourceError``."""
    try:
        state = os.stat(base + name)  # noqa: PTH116
        place = (state.st_dev, state.st_ino)
        if any(place == folder.place for folder in above):
            return None
        names: list[str] = []
        folders: set[str] = set()
        with os.scandir(base + name) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    if entry.is_dir():
                        folders.add(entry.name)
                    elif not entry.is_file():
                        continue
                names.append(entry.name)
    except OSError as error:
        raise SourceError(
            f"{base}{name}: the folder cannot be looked into: {error.strerror}; make it readable, or name its neighbours"
        ) from error
    names.sort()
    return _Folder(name, place, iter(names), frozenset(folders))


class LocalFile(io.RawIOBase):
    """A file up to the size that it had when the input was opened: what is appended meanwhile, half a line perhaps, is not read."""

    def __init__(self, path: str, size: int) -> None:
        self._file = io.FileIO(path)
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = max(0, self._size - self._file.tell())
        return int(self._file.readinto(memoryview(buffer)[:room]) or 0)

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes from an offset on, fewer at the end; ``tell`` stays."""
        return os.pread(self._file.fileno(), max(0, min(size, self._size - offset)), offset)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset, whence = offset + min(self._size, self._file.seek(0, io.SEEK_END)), io.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
