"""Bytes in, files that survive a crash out: whole or not there at all, on disk when the call returns.

The one place where an ``OSError`` of writing becomes a ``WriteError``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from llmbatch.core.errors import WriteError
from llmbatch.core.faults import point

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EROFS: "choose a folder on a file system that can be written to",
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.ENOENT: "create the folder that it is to lie in",
    errno.EIO: "check the disk, then run the same command again",
}
_FEW = 64  # files of a folder that are synced one by one
# what file systems say that cannot sync a folder (some network and FUSE file systems); their renames need none
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``WriteError`` that names ``path`` (never the name of a temp file)."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        said = f"{os.strerror(code)} ({errno.errorcode.get(code, code)})" if code else str(error)
        advice = _ADVICE.get(code, "put that right and run the same command again")
        raise WriteError(f"cannot write {path}: {said}; {advice}") from error


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that becomes ``path`` when the block ends well, and is removed when it does not.

    It lies in the same folder under a fixed hidden name, so that a killed writer leaves at most one file, which the
    next one overwrites. At the end it is synced and renamed, and the folder is synced. Raises ``WriteError``.
    """
    temp = temp_path(path)
    with writing(path):
        try:
            with temp.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            point("temp-written", path.name)
            temp.replace(path)
            point("renamed", path.name)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temp.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of ``path`` when the block ends well, and is removed when it does not.

    A killed writer leaves hidden folders, which the next one removes. Raises ``WriteError``.
    """
    temp, old = temp_path(path), temp_path(path).with_suffix(".old")
    with writing(path):
        for leftover in (temp, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        temp.mkdir(parents=True)
        try:
            yield temp
            _sync_below(temp)
            if path.exists():
                path.rename(old)
            point("folder-away", path.name)
            temp.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                shutil.rmtree(temp)
            raise
        fsync_folder(path.parent)
        if old.exists():
            shutil.rmtree(old)


def _sync_below(folder: Path) -> None:
    """Make all that is in a folder last. Very many files are synced at once, with all that other programs have not yet on a disk:
    one after another takes minutes.
    """
    paths = [folder, *islice(folder.rglob("*"), _FEW)]
    if len(paths) > _FEW:
        os.sync()
        return
    for path in paths:
        if path.is_dir():
            fsync_folder(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def atomic_write(path: Path, content: bytes | Iterable[bytes]) -> int:
    """Write a whole file, or leave what was there; returns its size in bytes. Raises ``WriteError``.

    An iterable that reads from elsewhere must translate its own ``OSError``, or it is taken for one of writing.
    """
    size = 0
    with atomic(path) as stream:
        for chunk in (content,) if isinstance(content, bytes) else content:
            size += stream.write(chunk)
    return size


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in the folder last. Raises ``WriteError``."""
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(handle)


def temp_path(path: Path) -> Path:
    """Where ``atomic`` writes before the rename; what lies there is never to be read."""
    return path.with_name(f".{path.name}.tmp")
