"""A window's records in, appended to its journal as they finish; sealed in input order as a part when all are there.

In the folder ``parts/``, for window 42:

    part-00042.journal      while the window is open: a header line, then an entry a line, appended
    part-00042.meta.json    written just before the part: bounds, checksum, ledger
    part-00042.jsonl        the sealed part: the window's lines of results.jsonl. Its rename is the commit.

Files are only appended or renamed into place, so this holds on NFS and object stores, and a reader never sees half a part.
What a kill can leave behind is a torn last line of a journal (the row is owed again), a meta file without its part (made again)
and a journal beside its part (removed).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.faults import point, torn
from llmbatch.core.files import atomic, atomic_write, fsync_folder, writing
from llmbatch.core.ledger import Ledger
from llmbatch.folder.bounds import Bounds, bounds_from_dict, bounds_to_dict
from llmbatch.folder.journal import JOURNAL_VERSION, Replay, read_journal

PART_VERSION = 1

_NAME = re.compile(r"part-(\d{5,})\.(jsonl|journal|meta\.json)")


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a sealed part without reading it. ``ledger`` is the JSON form of its rows' ledger."""

    bounds: Bounds
    sha256: str
    input_sha256: str | None
    ledger: Mapping[str, Any]


class Parts:
    """The parts of one run folder. One thread opens journals, one writes to them and seals; reading is free for all.

    Every method that writes raises ``WriteError``. Journals have no buffer: what ``append`` returned from is with the kernel.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journals: dict[int, FileIO] = {}
        self._dirty: set[int] = set()

    def scan(self) -> tuple[set[int], set[int]]:
        """(numbers of the sealed windows, numbers of the windows with a journal that is still needed); one directory listing."""
        sealed, journals = set(), set()
        for path in self.folder.iterdir() if self.folder.exists() else ():
            if match := _NAME.fullmatch(path.name):
                if match[2] == "jsonl":
                    sealed.add(int(match[1]))
                elif match[2] == "journal":
                    journals.add(int(match[1]))
        return sealed, journals - sealed

    def path(self, window: int) -> Path:
        """Where a window's sealed part is or will be."""
        return self.folder / f"part-{window:05d}.jsonl"

    def whole(self, *, gaps: bool = False) -> list[Path]:
        """The parts of a run whose every window is sealed, in order. ``gaps`` says that only some rows of the input were run.

        Raises ``FolderError`` where a window is missing or does not begin where the one before it ends.
        """
        sealed, open_ = self.scan()
        following = 0
        for number, window in enumerate(sorted(sealed | open_)):
            start = self.meta(window).bounds.start.index if window in sealed else -1
            if window != number or start < following or (start > following and not gaps):
                raise FolderError(
                    f"{self.path(number)}: the sealed parts do not hold every row, from row {following} on; see llmbatch audit"
                )
            following = self.meta(window).bounds.last.index + 1
        return [self.path(window) for window in sorted(sealed)]

    def meta(self, window: int) -> Meta:
        """What is known of a sealed part. Raises ``FolderError`` where its meta file is missing, damaged or newer."""
        path = self._meta_path(window)
        try:
            data = json.loads(path.read_bytes())
            version = data["llmbatch_part"]
            if version > PART_VERSION:
                raise FolderError(
                    f"{path}: written by a newer llmbatch (part version {version}); upgrade llmbatch to go on"
                )
            return Meta(bounds_from_dict(data), data["sha256"], data["input_sha256"], data["ledger"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{path}: the meta file of a sealed part cannot be read: {error!r}; see llmbatch audit"
            ) from error

    def sum_of(self, metas: Iterable[Meta]) -> Ledger:
        """The account of the rows of sealed parts. Raises ``FolderError`` where that of a part cannot be read."""
        total = Ledger()
        for meta in metas:
            try:
                total.merge(Ledger.from_dict(meta.ledger))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise FolderError(
                    f"{self.path(meta.bounds.window)}: the ledger in its meta file cannot be read; see llmbatch audit"
                ) from error
        return total

    def open(self, bounds: Bounds, input_sha256: str | None) -> None:
        """Begin a window's journal. Its header is on disk when this returns, so its bounds survive whatever follows."""
        header = {"llmbatch_journal": JOURNAL_VERSION, **bounds_to_dict(bounds), "input_sha256": input_sha256}
        path = self._journal_path(bounds.window)
        with writing(path):
            file = FileIO(path, "w")
            self._journals[bounds.window] = file
            _write(file, json.dumps(header).encode() + b"\n")
            os.fsync(file.fileno())
        fsync_folder(self.folder)
        point("journal-opened")

    def replay(self, window: int) -> Replay | None:
        """What a window's journal holds; ``None`` where not even its header is whole. Raises ``FolderError``."""
        path = self._journal_path(window)
        try:
            return read_journal(path)[0]
        except OSError as error:
            raise FolderError(f"{path}: cannot be read: {error.strerror or error}") from error

    def reopen(self, window: int) -> Replay | None:
        """Read a journal and go on appending to it; ``None``, and the file is removed, where not even its header is whole."""
        path = self._journal_path(window)
        with writing(path):
            replay, good = read_journal(path)
            if replay is None:
                path.unlink()
                return None
            # appending: should a run that was taken for dead wake up, what both write stays whole
            file = self._journals[window] = FileIO(path, "a")
            file.truncate(good)
        return replay

    def append(self, window: int, entries: Sequence[bytes]) -> None:
        """Append entries to a window's journal: after this they survive the death of the process, not yet that of the machine."""
        file = self._journals[window]
        with writing(self._journal_path(window)):
            _write(file, torn("journal-torn", b"".join(entries)))
        point("journal-torn")
        point("journal-append")
        self._dirty.add(window)

    def commit(self) -> None:
        """Group commit: all that was appended survives the death of the machine too."""
        for window in self._dirty:
            with writing(self._journal_path(window)):
                os.fsync(self._journals[window].fileno())
        self._dirty.clear()

    def seal(
        self, bounds: Bounds, lines: Iterable[bytes], *, ledger: Mapping[str, Any], input_sha256: str | None
    ) -> None:
        """Write a window's part, in input order, and remove its journal. ``lines`` are its lines of results.jsonl."""
        window, content = bounds.window, b"".join(lines)
        meta = {
            "llmbatch_part": PART_VERSION,
            **bounds_to_dict(bounds),
            "sha256": hashlib.sha256(content).hexdigest(),
            "input_sha256": input_sha256,
            "ledger": ledger,
        }
        atomic_write(self._meta_path(window), json.dumps(meta).encode() + b"\n")
        point("meta-written")
        atomic_write(self.path(window), content)
        point("part-sealed")
        if (file := self._journals.pop(window, None)) is not None:
            self._dirty.discard(window)
            file.close()
        with writing(self._journal_path(window)):
            self._journal_path(window).unlink(missing_ok=True)
        point("journal-removed")

    def take(self, other: Parts, window: int, number: int) -> None:
        """Have a sealed part of another folder as the window with this number; its bytes are shared where the disk allows that."""
        meta = {**json.loads(other._meta_path(window).read_bytes()), "window": number}
        source, path = other.path(window), self.path(number)
        atomic_write(self._meta_path(number), json.dumps(meta).encode() + b"\n")
        with writing(path):
            try:
                os.link(source, path)
            except OSError:  # another file system, or one that has no links
                with atomic(path) as file, source.open("rb") as content:
                    shutil.copyfileobj(content, file)
        fsync_folder(self.folder)

    def close(self) -> None:
        """Commit and close what is open; the journals stay for the next session."""
        try:
            self.commit()
        finally:
            journals, self._journals = self._journals, {}
            for window, file in journals.items():
                with writing(self._journal_path(window)):
                    file.close()

    def discard(self, journals: Iterable[int]) -> None:
        """Remove the journals of windows in which nothing was done."""
        for window in journals:
            self._journal_path(window).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a kill left beside sealed parts: their journals, and temporary files."""
        sealed, _ = self.scan()
        leftovers = [p for p in self.folder.glob("*.journal") if (m := _NAME.fullmatch(p.name)) and int(m[1]) in sealed]
        for path in (*leftovers, *self.folder.glob(".*.tmp")):
            with writing(path):
                path.unlink(missing_ok=True)

    def _journal_path(self, window: int) -> Path:
        return self.folder / f"part-{window:05d}.journal"

    def _meta_path(self, window: int) -> Path:
        return self.folder / f"part-{window:05d}.meta.json"


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part first and says so only at the next try."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
