"""A folder, a glob or a URL in; its files in mini-batches, each as paths that a script can open, out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import has_magic
from pathlib import Path

from llmbatch.core.errors import InputChanged, ReadError, SourceError
from llmbatch.core.words import count
from llmbatch.sources.file_list import File
from llmbatch.sources.places import Place, as_text, find_here, is_url
from llmbatch.sources.reader import again


class Files:
    """The files of an input, sorted folder by folder, so many to a mini-batch. May be used by several threads."""

    def __init__(self, path: str, size: int) -> None:
        """Raises ``SourceError`` where there is no file, or the place cannot be reached."""
        if is_url(path):
            from llmbatch.sources.remote import find_there

            found = find_there(path, {}, folders=True)
        else:
            if not has_magic(path) and not Path(path).expanduser().exists():
                raise SourceError(f"{path}: no such folder or file; looked in {Path.cwd()}")
            found = find_here(path, folders=True)
        if not found.place.files:
            raise SourceError(f"{path}: there is no file in it that is not hidden")
        self._place: Place = found.place
        self._is_here = not is_url(path)
        self._size = size
        self.hidden = found.hidden

    def __len__(self) -> int:
        return len(self._place.files)

    @property
    def mini_batches(self) -> int:
        return -(-len(self) // self._size)

    def items(self, number: int) -> int:
        """How many files a mini-batch has."""
        return min(self._size, len(self) - number * self._size)

    def fingerprint(self) -> str:
        """Differs where a file is another, was changed, or is gone."""
        digest = hashlib.sha256()
        for file in self._place.files:
            digest.update(f"{as_text(file.name)}\0{file.size}\0{file.changed}\n".encode())
        return digest.hexdigest()

    @contextmanager
    def paths(self, number: int, scratch: Path) -> Iterator[list[str]]:
        """The absolute paths of a mini-batch's files; those that lie elsewhere are fetched into ``scratch``, and removed again.

        Raises ``InputChanged`` where a file is not what it was at the first look, and ``ReadError``.
        """
        numbers = range(number * self._size, number * self._size + self.items(number))
        if self._is_here:
            yield [self._here(self._place.files[n]) for n in numbers]
            return
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            yield [self._fetched(n, scratch) for n in numbers]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _here(self, file: File) -> str:
        path = (Path(self._place.folder) / file.name).absolute()
        try:
            now = path.stat()
        except OSError as error:
            raise InputChanged(
                f"{path}: was there when the run began, and cannot be read any more: {error.strerror}"
            ) from error
        if (now.st_size, now.st_mtime_ns) != (file.size, file.changed):
            raise InputChanged(f"{path}: was changed since the run began; put it back, or give another --output")
        return str(path)

    def _fetched(self, number: int, scratch: Path) -> str:
        file = self._place.files[number]
        inside = [part for part in file.name.split("/") if part not in ("", ".", "..")]
        path = scratch.joinpath(*inside)
        path.parent.mkdir(parents=True, exist_ok=True)

        def fetch() -> None:
            try:
                with self._place.raw(number) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            except OSError as error:
                raise ReadError(f"{self._place.folder}{file.name}: could not be read: {error}") from error

        again(fetch)
        if path.stat().st_size != file.size:
            raise InputChanged(
                f"{self._place.folder}{file.name}: has {count(path.stat().st_size)} bytes, and had {count(file.size)}"
            )
        return str(path.absolute())


def code_digest(folder: Path) -> str:
    """Differs where a file of a script's folder is another. What Python compiles there is none of it, nor are hidden files."""
    digest = hashlib.sha256()
    for path in _code_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _code_files(folder: Path) -> Sequence[Path]:
    def counts(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts)

    return sorted(path for path in folder.rglob("*") if counts(path))


__all__ = ["Files", "code_digest"]
