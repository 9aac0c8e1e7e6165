"""An input that is nowhere else (stdin, rows in memory) in; its copy in the run folder out, or that it is the one kept there.

The copy is what a run reads, so that it can be gone on with. It is put in its place only when it is seen to have rows, and replaced
only where no row of it was done, or by one that begins with it and is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llmbatch.core.errors import FolderError, LlmbatchError
from llmbatch.core.files import atomic_write, fsync_folder, writing
from llmbatch.folder.folder import RunFolder

KEPT = "input.jsonl"
"""The name of the copy."""

_CHUNK = 1 << 20


def keep(
    folder: RunFolder,
    chunks: Iterator[bytes],
    *,
    extend: bool,
    check: Callable[[Path], object],
    refusal: Callable[[bool], LlmbatchError],
) -> None:
    """Keep an input, given in ``chunks``, in a folder that we hold.

    ``check`` raises where a file has no rows. Where other rows are kept already it raises what ``refusal`` makes; that is told
    whether the input is what is kept and more, which is accepted with ``extend``. Nothing is written where they are the same.
    """
    copy = folder.path / KEPT
    if copy.exists():
        found = _difference(copy, chunks)
        if found is None:
            return
        if folder.manifest is None or (folder.begun and not (found.grown and extend)):
            raise refusal(found.grown and folder.manifest is not None)
        chunks = chain(_read(copy, found.same), found.rest)
    new = copy.with_name(f".{KEPT}.new")
    try:
        atomic_write(new, chunks)
        check(new)
        with writing(copy):
            new.replace(copy)
        fsync_folder(copy.parent)
    finally:
        new.unlink(missing_ok=True)


class _Difference(NamedTuple):
    """Where an input leaves its copy: after how many bytes, what follows there, and whether it only goes on after its last line."""

    same: int
    rest: Iterator[bytes]
    grown: bool


def _difference(copy: Path, chunks: Iterator[bytes]) -> _Difference | None:
    """``None`` where input and copy are the same."""
    same, last = 0, b""
    with _opened(copy) as kept:
        for chunk in chunks:
            known = kept.read(len(chunk))
            if known != chunk:
                ended = chunk.startswith(known)  # then it is the copy that ends here
                whole = (last + known).endswith(b"\n") or chunk[len(known) :].startswith((b"\n", b"\r"))
                return _Difference(same, chain([chunk], chunks), ended and whole)
            same, last = same + len(chunk), chunk[-1:]
        return _Difference(same, iter(()), grown=False) if kept.read(1) else None


def _read(copy: Path, size: int) -> Iterator[bytes]:
    with _opened(copy) as kept:
        while size and (chunk := kept.read(min(size, _CHUNK))):
            size -= len(chunk)
            yield chunk


def _opened(copy: Path) -> BinaryIO:
    try:
        return copy.open("rb")
    except OSError as error:
        raise FolderError(f"{copy}: cannot be read: {error.strerror or error}") from error


__all__ = ["KEPT", "keep"]
