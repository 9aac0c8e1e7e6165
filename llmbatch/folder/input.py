"""The input of a run: opened, and held against what the run began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from llmbatch.core.errors import InputChanged, SourceError
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input_copy import KEPT, keep
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source
from llmbatch.sources.places import is_url
from llmbatch.sources.stdin import chunks

Known = tuple[Bounds, str | None]
"""A window that was read before, and the digest of its input."""


def kept_input(settings: SourceSettings, folder: Path) -> SourceSettings:
    """The input as it lies: what came through stdin is a copy in the run folder. Raises ``SourceError`` where that is gone."""
    if settings.path != "-":
        return settings
    copy = folder / KEPT
    if not copy.exists():
        raise SourceError(f"{copy}: the copy of what came through stdin is gone")
    return settings.model_copy(update={"path": str(copy), "format": settings.format or "jsonl"})


def open_input(settings: SourceSettings, folder: RunFolder, stdin: BinaryIO | None, *, extend: bool = False) -> Source:
    """The source. Stdin is first copied into the run folder, so that the run can be resumed; later it must be the same again.

    Where nothing comes through it (a terminal, a closed or an empty stdin) a run goes on with its copy. Raises ``SourceError``,
    ``ReadError`` or ``WriteError``, and ``InputChanged`` for another input than what was kept.
    """
    if settings.path == "-":
        _keep_stdin(settings, folder, stdin, extend=extend)
    return open_source(kept_input(settings, folder.path))


def _keep_stdin(settings: SourceSettings, folder: RunFolder, stdin: BinaryIO | None, *, extend: bool) -> None:
    kept = (folder.path / KEPT).exists()
    if kept and (stdin is None or stdin.isatty()):
        return
    if stdin is None:
        raise SourceError("stdin is closed: pipe the rows into it, or name a file as --input")
    coming = chunks(stdin)
    first = next(coming, b"")
    if not first:
        if kept:
            return
        raise SourceError("nothing came through stdin: does the command before the pipe print its rows?")

    def check(new: Path) -> None:
        try:
            open_source(settings.model_copy(update={"path": str(new), "format": settings.format or "jsonl"}))
        except SourceError as error:
            raise SourceError(str(error).replace(str(new), "stdin").replace(new.name, "stdin")) from error

    def refusal(grown: bool) -> InputChanged:
        if grown:
            return InputChanged(
                "the input has grown: what comes through stdin is what this run began with, and more. Give --extend to run the "
                "new rows too"
            )
        return InputChanged(
            f"the input is not what this run began with: what comes through stdin is not what {folder.path / KEPT} holds. Pipe "
            "the same rows again, or none to go on with that copy, or give another --output to begin anew"
        )

    keep(folder, chain([first], coming), extend=extend, check=check, refusal=refusal)


def input_digest(source: Source, bounds: Bounds) -> str | None:
    """The digest of a window's input. Where the input ended there, its last row counts by what it holds, after a plus sign: what is
    appended later does not change it.
    """
    before = source.digest(bounds.start, bounds.stop or bounds.last)
    if before is None or bounds.stop is not None:
        return before
    row = next(source.rows(bounds.last), None)
    held = "" if row is None else json.dumps(row.data, ensure_ascii=False, sort_keys=True)
    return f"{before}+{hashlib.sha256(held.encode()).hexdigest()}"


def is_as_read(source: Source, bounds: Bounds, digest: str | None) -> bool:
    """Whether a window's input is what it was when it was read with this digest; where there is none, that is believed."""
    now = input_digest(source, bounds) if digest is not None else None
    if now is None or digest is None:
        return now == digest
    return now == digest or ("+" not in digest and now.partition("+")[0] == digest)  # before, the last row was left out


def check_input(
    source: Source,
    known: list[dict[str, Any]] | None,
    windows: Sequence[Known],
    *,
    extend: bool,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Compare the input with what the run began with; returns its fingerprint as it is now. ``limit`` is the job's, on rows.

    A file that was merely touched or copied passes. Raises ``InputChanged``, naming what changed.
    """
    read = max((bounds.last.index + 1 for bounds, _ in windows), default=0)
    if limit is not None and limit < read:
        raise InputChanged(
            f"input.limit is {limit}, and this run has read {read} rows already: give --limit {read} or more, or another --output "
            "to begin anew"
        )
    now = source.fingerprint()
    if known is None or now == known:
        return now
    more = _files_in(now) > _files_in(
        known
    )  # of very many files it can only be told together whether the first are the same
    grown, problems = _compare(known, source.fingerprint(_files_in(known)) if more else now)
    if more:
        grown.append(f"it had {_files_in(known):,} files, now {_files_in(now):,}")
    if changed := _changed_windows(source, windows):
        problems.insert(0, f"rows {changed} differ")
    if problems:
        raise InputChanged(
            f"the input is not what this run began with: {'; '.join(problems)}. Restore it, or give another --output to begin anew"
        )
    if grown and not extend:
        raise InputChanged(f"the input has grown: {'; '.join(grown)}. Give --extend to run the new rows too")
    return now


def same_names(known: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A fingerprint with its files called as they are now: from another current folder, or in a folder that was moved."""
    renamed = [dict(entry) for entry in known]
    for before, after in zip(renamed, now, strict=False):
        if "file" in before and "file" in after:
            before["file"] = after["file"]
    return renamed


def has_grown(known: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an input that passed is longer than what its run began with."""
    return _files_in(now) > _files_in(known) or bool(_compare(known, now)[0])


def _files_in(fingerprint: Sequence[Mapping[str, Any]]) -> int:
    return sum(entry.get("files", "read_with" not in entry) for entry in fingerprint)


def _changed_windows(source: Source, windows: Sequence[Known]) -> str:
    """The first window whose rows are not what they were, as a range of row indexes; empty where all are."""
    for bounds, digest in windows:
        if not is_as_read(source, bounds, digest):
            return f"{bounds.start.index} to {bounds.last.index}"
    return ""


def _compare(known: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """(what has grown, what changed otherwise), in words.

    A newer time or another name alone is nothing, if size and ends agree: the file was copied, or moved with its run folder, or is
    named from another current folder.
    """
    grown: list[str] = []
    problems: list[str] = []
    for number, (old, new) in enumerate(zip(known, now, strict=False)):
        name = str(new.get("file", new.get("dataset", "the input")))
        different = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key not in _COPIED]
        if not different:
            continue
        if different == ["drawn"]:
            (grown if _is_more(old["drawn"], new["drawn"]) else problems).append(
                f"{_rows(old['drawn'])} were to be drawn, now {_rows(new['drawn'])}"
            )
            continue
        if different == ["items"]:
            problems.append("the files that items are drawn from changed")
            continue
        before, after = old.get("size"), new.get("size")
        if "read_with" in old or "read_with" in new:
            problems.append(
                f"documents were read with {_packages(old)}, and are now with {_packages(new)}: install what it was for this run"
            )
        elif "files" in old or "files" in new:
            problems.append(
                f"the files {new.get('first')} to {new.get('last')} are not those that they were: {_how(old, new)}"
            )
        elif old.get("file") != new.get("file"):
            problems.append(f"file {number + 1} was {old.get('file')}, now {new.get('file')}")
        elif before is not None and after is not None and after > before and number == len(known) - 1:
            if _went_on_in_a_line(str(new.get("file")), int(before)):
                problems.append(f"the last line of {name} was unfinished, and went on")
            else:
                grown.append(f"{name} had {before:,} bytes, now {after:,}")
        elif before != after:
            problems.append(f"{name} had {before:,} bytes, now {after:,}")
        else:
            problems.append(f"{name}: {', '.join(sorted(different))} changed")
    if _files_in(now) < _files_in(known):
        problems.append(f"it had {_files_in(known):,} files, now {_files_in(now):,}")
    return grown, problems


def _is_more(before: int | None, after: int | None) -> bool:
    """Whether more rows are drawn; None: without an end."""
    return before is not None and (after is None or after > before)


def _rows(count: int | None) -> str:
    return "rows without an end" if count is None else f"{count:,} rows"


_COPIED = ("mtime_ns", "mtimes", "etag", "etags", "file")
"""What differs where a file was merely touched, copied or moved. An etag can, although a store gives equal content an equal one: it
depends on how the content was sent."""


def _packages(entry: Mapping[str, Any]) -> str:
    return ", ".join(entry.get("read_with", {}).values()) or "none"


def _how(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for what in ("files", "bytes"):
        if old.get(what) != new.get(what):
            return f"{old.get(what, 0):,} {what} then, {new.get(what, 0):,} now"
    return "names or sizes changed"


def _went_on_in_a_line(name: str, size: int) -> bool:
    """Whether what was appended belongs to the line that was the last: then a finished row is no longer what it was.

    Where that is not looked at, the digest of the last window tells.
    """
    if is_url(name) or Path(name).suffix in {".gz", ".zst", ".bz2", ".xz", ".parquet", ".pq"} or not size:
        return False
    with Path(name).open("rb") as file:
        file.seek(size - 1)
        around = file.read(2)
    return b"\n" not in around and b"\r" not in around
