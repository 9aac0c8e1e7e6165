"""Finished mini-batches in; what of them survives a kill, and at the end their rows in the order of the input, out.

In a hidden folder of the output: ``job.json`` says what is run, ``rows`` has the rows of mini-batches as they finish, one behind
the other, and ``journal.jsonl`` a line for each of them, written after its rows. A line that is torn, or whose rows are not what it
says, counts as not there: its mini-batch is run again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llmbatch.core.errors import FolderError
from llmbatch.core.faults import point, torn
from llmbatch.core.files import atomic, atomic_write, fsync_folder, writing

_CHUNK = 1 << 20
_SYNC_SECONDS = 0.5  # a loss of power may cost so much of the work; a kill costs none
_VERSION = 1


class Done(NamedTuple):
    """One finished mini-batch. ``failed`` of its items have no row; of one ``without`` rows every attempt failed."""

    number: int
    rows: int
    failed: int
    without: bool


class Counts(NamedTuple):
    """What there is of a run. ``short`` are mini-batches that failed, or have fewer rows than items."""

    mini_batches: int = 0
    items: int = 0
    rows: int = 0
    failed_items: int = 0
    failed: int = 0
    short: int = 0

    def plus(self, done: Done, items: int) -> Counts:
        return Counts(
            self.mini_batches + 1,
            self.items + items,
            self.rows + done.rows,
            self.failed_items + done.failed,
            self.failed + done.without,
            self.short + (done.failed > 0),
        )


class Journal:
    """The state of one output folder. Not to be used by two threads at once."""

    def __init__(self, folder: Path, mini_batches: int) -> None:
        """``folder`` is the hidden one, and exists."""
        self._folder = folder
        self._offsets = array("q", bytes(8 * mini_batches))
        self._sizes = array("q", [-1]) * mini_batches  # of a mini-batch that is not finished there are -1 bytes
        self._rows: BinaryIO | None = None
        self._journal: BinaryIO | None = None
        self._synced = 0.0

    def open(self, *, again: bool) -> list[Done]:
        """Read what is there and be ready for more; ``again``: mini-batches with failed items are to be run once more.

        Raises ``WriteError`` and ``FolderError``.
        """
        found, end = self._found(again)
        with writing(self._folder / "rows"):
            self._rows = (self._folder / "rows").open("ab")
            self._rows.truncate(end)
            self._rows.seek(end)
        lines = b"".join(
            self._line(done, self._offsets[done.number], self._sizes[done.number], crc) for done, crc in found
        )
        atomic_write(self._folder / "journal.jsonl", lines)
        with writing(self._folder / "journal.jsonl"):
            self._journal = (self._folder / "journal.jsonl").open("ab", buffering=0)
        return [done for done, _ in found]

    def is_done(self, number: int) -> bool:
        return self._sizes[number] >= 0

    def add(self, done: Done, rows: Path | None) -> None:
        """A mini-batch is finished; its rows are in a file. Raises ``WriteError``."""
        assert self._rows is not None and self._journal is not None  # noqa: S101 - for the type checker
        with writing(self._folder / "rows"):
            offset, size, crc = self._rows.tell(), 0, 0
            if rows is not None:
                with rows.open("rb") as source:
                    while chunk := source.read(_CHUNK):
                        self._rows.write(chunk)
                        crc = zlib.crc32(chunk, crc)
                        size += len(chunk)
            self._rows.flush()
        point("azureml-rows")
        with writing(self._folder / "journal.jsonl"):
            self._journal.write(torn("azureml-torn", self._line(done, offset, size, crc)))
            point("azureml-torn")
            point("azureml-journal")
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()
        self._offsets[done.number], self._sizes[done.number] = offset, size

    def write_output(self, path: Path) -> int:
        """The rows of all finished mini-batches in the order of the input, in a file that is there whole or not at all.

        Returns its size. Raises ``WriteError``, and ``FolderError`` where the rows cannot be read any more.
        """
        with writing(self._folder / "rows"):
            if self._rows is not None:
                self._rows.flush()
        size = 0
        with atomic(path) as stream:
            for chunk in self._in_order():
                size += stream.write(chunk)
        return size

    def close(self) -> None:
        """May be called twice. Raises ``WriteError``."""
        with writing(self._folder / "rows"):
            if self._rows is not None and self._journal is not None:
                self._sync()
                self._rows.close()
                self._journal.close()
        self._rows = self._journal = None

    def _sync(self) -> None:
        assert self._rows is not None and self._journal is not None  # noqa: S101 - for the type checker
        os.fsync(self._rows.fileno())
        os.fsync(self._journal.fileno())
        self._synced = time.monotonic()

    def _in_order(self) -> Iterator[bytes]:
        path = self._folder / "rows"
        try:
            with path.open("rb") as rows:
                for offset, size in zip(self._offsets, self._sizes, strict=True):
                    left = max(size, 0)
                    rows.seek(offset)
                    while left:
                        chunk = rows.read(min(left, _CHUNK))
                        if not chunk:
                            raise FolderError(
                                f"{path}: ends before rows that were there; remove {path.parent} to begin anew"
                            )
                        left -= len(chunk)
                        yield chunk
        except OSError as error:
            raise FolderError(f"{path}: cannot be read: {error}") from error

    def _found(self, again: bool) -> tuple[list[tuple[Done, int]], int]:
        """(finished mini-batches with the check sums of their rows, where the rows end that count)."""
        found: list[tuple[Done, int]] = []
        end = 0
        journal, rows = self._folder / "journal.jsonl", self._folder / "rows"
        if not journal.exists():
            return found, end
        try:
            with journal.open("rb") as lines, rows.open("rb") as content:
                for line in lines:
                    entry = _parsed(line)
                    if entry is None:
                        break
                    done = Done(entry["number"], entry["rows"], entry["failed"], bool(entry["without"]))
                    if not 0 <= done.number < len(self._sizes) or self.is_done(done.number):
                        continue
                    if (again and done.failed) or not _is_as_said(content, entry):
                        continue
                    self._offsets[done.number], self._sizes[done.number] = entry["offset"], entry["size"]
                    end = max(end, entry["offset"] + entry["size"])
                    found.append((done, entry["crc"]))
        except OSError as error:
            raise FolderError(f"{journal}: cannot be read: {error}; remove {self._folder} to begin anew") from error
        return found, end

    @staticmethod
    def _line(done: Done, offset: int, size: int, crc: int) -> bytes:
        body = {**done._asdict(), "without": int(done.without), "offset": offset, "size": size, "crc": crc}
        return json.dumps(body, separators=(",", ":")).encode() + b"\n"


_KEYS = ("number", "rows", "failed", "without", "offset", "size", "crc")


def _parsed(line: bytes) -> dict[str, int] | None:
    """``None`` for a line that is not whole."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not line.endswith(b"\n") or not isinstance(entry, dict) or any(type(entry.get(key)) is not int for key in _KEYS):
        return None
    return entry


def _is_as_said(content: BinaryIO, entry: Mapping[str, int]) -> bool:
    content.seek(entry["offset"])
    left, crc = entry["size"], 0
    while left:
        chunk = content.read(min(left, _CHUNK))
        if not chunk:
            return False
        left -= len(chunk)
        crc = zlib.crc32(chunk, crc)
    return crc == entry["crc"]


def begin(folder: Path, identity: Mapping[str, str], output: Path | None) -> str | None:
    """Make the hidden folder, or go on with it; returns how the job that it is of ended, if it did.

    Raises ``FolderError`` where it is of another job, naming what differs, or where the output file is there already.
    """
    path = folder / "job.json"
    try:
        there = json.loads(path.read_bytes())
    except FileNotFoundError:
        there = None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; remove {folder} to begin anew") from error
    if there is None:
        if output is not None and output.exists():
            raise FolderError(
                f"{output}: is there already, and would have to be written: move it away, or give another --output"
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps({"version": _VERSION, "identity": dict(identity)}).encode())
        return None
    if not isinstance(there, dict) or there.get("version", 0) > _VERSION or not isinstance(there.get("identity"), dict):
        raise FolderError(
            f"{path}: not written by this llmbatch; give another --output, or remove {folder} to begin anew"
        )
    if changed := [name for name, value in identity.items() if there["identity"].get(name) != value]:
        raise FolderError(
            f"{folder.parent}: was begun with another {', '.join(changed)}: restore that to go on, give another --output, "
            f"or remove {folder} to begin anew"
        )
    ended = there.get("ended")
    return ended if isinstance(ended, str) else None


def end(folder: Path, outcome: str | None) -> None:
    """Write down how the job ended; ``None``: it goes on. Raises ``WriteError``."""
    path = folder / "job.json"
    there = json.loads(path.read_bytes())
    atomic_write(path, json.dumps({**there, "ended": outcome}).encode())


def tidy(folder: Path, *, whole: bool) -> None:
    """Remove what only a running job needs; of one that did it as a ``whole`` its rows too. Raises ``WriteError``."""
    with writing(folder):
        for path in folder.glob("process*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("rows", "journal.jsonl") if whole else ():
            (folder / name).unlink(missing_ok=True)
    fsync_folder(folder)
