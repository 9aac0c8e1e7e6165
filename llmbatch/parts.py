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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import FolderError
from llmbatch.core.faults import point, torn
from llmbatch.core.files import atomic_write, fsync_folder, writing
from llmbatch.core.types import Completion, Cursor, Failure, FailureKind, Outcome, Refusal, RequestKey, Reused, Usage

JOURNAL_VERSION = 1
PART_VERSION = 1

_RECORD, _REUSED, _TAIL = b'"record":', b'{"reused":{', b"}\n"
_NAME = re.compile(r"part-(\d{5,})\.(jsonl|journal|meta\.json)")


class Bounds(NamedTuple):
    """Which rows a window holds: from ``start`` up to ``stop`` (``None``: the end of the input as it was)."""

    window: int
    start: Cursor
    last: Cursor  # of its last row: where a grown input is entered again
    stop: Cursor | None
    rows: int


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a sealed part without reading it. ``ledger`` is the JSON form of its rows' ledger."""

    bounds: Bounds
    sha256: str
    input_sha256: str | None
    ledger: Mapping[str, Any]


@dataclass(slots=True)
class Replay:
    """What the journal of an open window holds: finished rows' lines and, of unfinished rows, the outcomes so far."""

    bounds: Bounds
    input_sha256: str | None = None
    lines: dict[int, bytes] = field(default_factory=dict)  # row index -> line of results.jsonl
    reused: dict[int, Reused] = field(default_factory=dict)  # row index -> the part of its usage not computed for it
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)


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
            return Meta(_bounds(data), data["sha256"], data["input_sha256"], data["ledger"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{path}: the meta file of a sealed part cannot be read: {error!r}; see llmbatch audit"
            ) from error

    def open(self, bounds: Bounds, input_sha256: str | None) -> None:
        """Begin a window's journal. Its header is on disk when this returns, so its bounds survive whatever follows."""
        header = {"llmbatch_journal": JOURNAL_VERSION, **_bounds_to_dict(bounds), "input_sha256": input_sha256}
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
            **_bounds_to_dict(bounds),
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


def record_entry(line: bytes, reused: Reused | None = None) -> bytes:
    """The journal entry of a finished row; ``line`` is its line of results.jsonl, kept byte for byte."""
    if reused is None:
        return b"{" + _RECORD + line[:-1] + _TAIL
    body = json.dumps({**reused.usage.as_dict(), "cached": reused.cached}).encode()
    return b'{"reused":' + body + b"," + _RECORD + line[:-1] + _TAIL


def outcome_entry(outcome: Outcome) -> bytes:
    """The journal entry of an outcome after which its row is not finished."""
    if isinstance(outcome, Refusal):
        body: dict[str, Any] = {"kind": outcome.failure.kind.value, "message": outcome.failure.message}
    else:
        body = {
            "text": outcome.text,
            "finish_reason": outcome.finish_reason,
            "usage": outcome.usage.as_dict(),
            "token_ids": list(outcome.token_ids),
            "reasoning": outcome.reasoning,
            "stop_reason": outcome.stop_reason,
            "logprobs": outcome.logprobs,
        }
        if outcome.reused_from is not None:
            body["reused_from"] = outcome.reused_from
    return json.dumps({"outcome": {"key": list(outcome.key), **body}}, separators=(",", ":")).encode() + b"\n"


def read_journal(path: Path) -> tuple[Replay | None, int]:
    """(what a journal holds, how many of its bytes are whole entries). The first entry that is not whole ends it.

    ``None`` where not even the header is whole. Raises ``FolderError`` for a journal of a newer version.
    """
    with path.open("rb") as file:
        header = _parse(file.readline())
        if header is None:
            return None, 0
        try:
            if header["llmbatch_journal"] > JOURNAL_VERSION:
                raise FolderError(
                    f"{path}: written by a newer llmbatch (journal version {header['llmbatch_journal']}); upgrade llmbatch to go on"
                )
            replay = Replay(_bounds(header), header["input_sha256"])
        except (KeyError, TypeError, ValueError):
            return None, 0
        good = file.tell()
        for line in file:
            if not _replay(line, replay):
                break
            good += len(line)
    return replay, good


def _replay(line: bytes, replay: Replay) -> bool:
    """Take one entry in; ``False`` where it is not whole."""
    entry = _parse(line)
    if entry is None:
        return False
    try:
        if "record" in entry:
            index = int(entry["record"]["index"])
            if not line.startswith((b"{" + _RECORD, _REUSED)):
                return False
            if "reused" in entry:
                replay.reused[index] = _reused(entry["reused"])
            replay.lines[index] = line[line.index(_RECORD) + len(_RECORD) : -len(_TAIL)] + b"\n"
            replay.outcomes.pop(index, None)
        else:
            outcome = _outcome(entry["outcome"])
            replay.outcomes.setdefault(outcome.key.index, []).append(outcome)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _outcome(body: dict[str, Any]) -> Outcome:
    key = RequestKey(*body["key"])
    if "kind" in body:
        return Refusal(key, Failure(FailureKind(body["kind"]), body["message"]))
    return Completion(
        key,
        body["text"],
        body["finish_reason"],
        Usage(**body["usage"]),
        tuple(body["token_ids"]),
        body["reasoning"],
        body["stop_reason"],
        body["logprobs"],
        body.get("reused_from"),
    )


def _reused(body: dict[str, Any]) -> Reused:
    cached = body.pop("cached")
    return Reused(Usage(**body), bool(cached))


def _bounds(data: Mapping[str, Any]) -> Bounds:
    stop = data["stop"]
    return Bounds(
        data["window"], Cursor(*data["start"]), Cursor(*data["last"]), Cursor(*stop) if stop else None, data["rows"]
    )


def _bounds_to_dict(bounds: Bounds) -> dict[str, Any]:
    return {
        "window": bounds.window,
        "start": list(bounds.start),
        "last": list(bounds.last),
        "stop": list(bounds.stop) if bounds.stop else None,
        "rows": bounds.rows,
    }


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part first and says so only at the next try."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
