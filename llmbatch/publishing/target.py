"""A folder's name in; a dataset there, whole or not at all, out: it is made in a folder beside it, which is renamed at the end.

A folder is only ever replaced where all that is in it was published by llmbatch, and is as it was published. What a killed
publication leaves behind are hidden folders beside the dataset, which the next one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError, JobError, Locked
from llmbatch.core.faults import point
from llmbatch.core.files import atomic_write, fsync_folder, writing

PROVENANCE, CARD, DROPPED = "provenance.json", "README.md", "dropped.jsonl"
DATA, ARROW = "data", "arrow"
WORK = "work"
"""Where what is only needed while a dataset is made lies in its folder."""
_VERSION = 1


class Target:
    """Where a dataset is to lie. Raises ``FolderError`` for a folder that holds other things, and ``JobError`` for a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()  # not a link to it, which would be replaced
        self._making = self.folder.with_name(f".{self.folder.name}.new")
        self._old = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists() and not self.folder.is_dir():
            raise JobError(f"{folder}: is a file, and a dataset is a folder: give another --output")
        if not self.folder.exists() and self._old.exists():  # killed between the two renames
            with writing(self.folder):
                self._old.rename(self.folder)
        self._earlier = _earlier(self.folder)

    def published(self, made_of: str) -> dict[str, Any] | None:
        """The provenance of what lies there, where it was made of the same."""
        if self._earlier is None or self._earlier.get("made_of") != made_of:
            return None
        shutil.rmtree(self._old, ignore_errors=True)  # of one that was killed when its dataset was in its place
        return self._earlier

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """An empty folder to put the dataset into; where the block ends well it takes the place of the target.

        Raises ``Locked`` where another publication is at it, and ``WriteError``.
        """
        with writing(self.folder):
            self._making.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._making, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked(f"{self.folder}: another publication is writing there; wait for it, or end it") from None
            except OSError:  # a file system without locks
                pass
            _empty(self._making)
            try:
                yield self._making
            except BaseException:
                shutil.rmtree(self._making, ignore_errors=True)
                raise
            self._take_place()
        finally:
            os.close(handle)

    def _take_place(self) -> None:
        with writing(self.folder):
            if self._old.exists():
                shutil.rmtree(self._old)
            point("dataset-made")
            if self.folder.exists():
                self.folder.rename(self._old)
            point("dataset-moved")
            self._making.rename(self.folder)
            point("dataset-placed")
            shutil.rmtree(self._old, ignore_errors=True)
        fsync_folder(self.folder.parent)


def write_provenance(folder: Path, facts: Mapping[str, Any], made_of: str) -> None:
    """Write down what the dataset in a folder was made of, and which files it has. The last file to be written."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder) if path.name != PROVENANCE}
    body = {"llmbatch_publish": _VERSION, "made_of": made_of, "card": _digest(folder / CARD), "files": files, **facts}
    atomic_write(folder / PROVENANCE, json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


def is_provenance(text: bytes) -> dict[str, Any] | None:
    """What a ``provenance.json`` says, if it is one of llmbatch's."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("llmbatch_publish"), int) else None


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The provenance of the publication in a folder; ``None`` where there is nothing. Raises ``FolderError`` for other things."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    try:
        provenance = is_provenance((folder / PROVENANCE).read_bytes())
    except FileNotFoundError:
        provenance = None
    except OSError as error:
        raise FolderError(f"{folder / PROVENANCE}: cannot be read: {error.strerror or error}") from error
    if provenance is None:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise FolderError(
            f"{folder}: holds files that are no dataset of llmbatch's ({names}); give an empty or a new folder as --output"
        )
    known = {PROVENANCE, *provenance["files"]}
    if strangers := sorted(str(path.relative_to(folder)) for path in _files(folder)
                           if str(path.relative_to(folder)) not in known):  # fmt: skip
        raise FolderError(
            f"{folder}: holds files besides the dataset that was published there ({', '.join(strangers[:3])}), which a new one "
            "would take the place of: move them away, or give another --output"
        )
    card = folder / CARD
    if card.exists() and _digest(card) != provenance["card"]:
        raise FolderError(
            f"{card}: was edited since it was published, and would be written anew: move it away, or give another --output"
        )
    whole = all((folder / name).exists() and (folder / name).stat().st_size == size
                for name, size in provenance["files"].items())  # fmt: skip
    return provenance if whole else {**provenance, "made_of": None}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _empty(folder: Path) -> None:
    with writing(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
