"""A file or folder of the driver's machine in; the same on another machine out: what is there already is not sent.

A node has it where the same path holds files of the same names and sizes, as on a shared file system. Otherwise it is sent in
chunks, once for all engines of a node, and stays in the node's temporary folder for the next run.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK_BYTES = 16 << 20


class Listing(NamedTuple):
    """What a file or folder holds: each file's path within it (empty: it is a file itself), its size and when it was changed."""

    place: str
    files: tuple[tuple[str, int, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.files)

    @property
    def key(self) -> str:
        return hashlib.blake2b(repr(self).encode(), digest_size=12).hexdigest()


class Chunk(NamedTuple):
    """A piece of a file, behind those before it; of an empty file one without data."""

    path: str
    data: bytes


def listing_of(place: Path) -> Listing:
    """What is there. Raises ``OSError``."""
    paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    files = []
    for path in paths:
        found = path.stat()
        files.append(("" if path == place else path.relative_to(place).as_posix(), found.st_size, found.st_mtime_ns))
    return Listing(str(place), tuple(files))


def chunks_of(listing: Listing) -> Iterator[Chunk]:
    """All that is in it, in order. Raises ``OSError``."""
    for name, _, _ in listing.files:
        with (Path(listing.place) / name).open("rb") as file:
            first = True
            while (data := file.read(CHUNK_BYTES)) or first:
                yield Chunk(name, data)
                first = False


class Shelf:
    """What was sent to this machine. One parcel comes at a time; whoever else wants the same waits for it in ``begin``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"llmbatch-models-{getpass.getuser()}"
        self._lock: BinaryIO | None = None
        self._listing: Listing | None = None

    def find(self, listing: Listing) -> str | None:
        """Where this machine has it; ``None`` where it has not."""
        for place in (Path(listing.place), self._place(listing)):
            if all(_has(place / name, size) for name, size, _ in listing.files):
                return str(place)
        return None

    def begin(self, listing: Listing) -> str | None:
        """Make room for it; where it has come meanwhile, its place. Blocks while another process receives the same."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (self._folder / f"{listing.key}.lock").open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        found = self.find(listing)
        if found is not None:
            self._lock.close()
            return found
        shutil.rmtree(self._partial(listing), ignore_errors=True)  # of one whose sender was killed
        self._partial(listing).mkdir()
        self._listing = listing
        return None

    def add(self, chunk: Chunk) -> None:
        """The next piece."""
        path = self._partial(self._open) / _name(self._open) / chunk.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(chunk.data)

    def end(self) -> str:
        """All is there: its place. Raises ``OSError`` where it is not whole."""
        listing = self._open
        self._partial(listing).rename(self._place(listing).parent)
        self._listing = None
        if self._lock is not None:
            self._lock.close()
        found = self.find(listing)
        if found is None:
            shutil.rmtree(self._place(listing).parent)
            raise OSError(f"{listing.place}: it was changed while it was sent")
        return found

    @property
    def _open(self) -> Listing:
        assert self._listing is not None  # noqa: S101 - ``begin`` comes first
        return self._listing

    def _place(self, listing: Listing) -> Path:
        return self._folder / listing.key / _name(listing)

    def _partial(self, listing: Listing) -> Path:
        return self._folder / f"{listing.key}.partial"


def _name(listing: Listing) -> str:
    """As it is called at home: engines tell formats by the names of files."""
    return Path(listing.place).name or "model"


def _has(path: Path, size: int) -> bool:
    try:
        return path.is_file() and os.path.getsize(path) == size  # noqa: PTH202 - follows links
    except OSError:
        return False


__all__ = ["CHUNK_BYTES", "Chunk", "Listing", "Shelf", "chunks_of", "listing_of"]
