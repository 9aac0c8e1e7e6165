"""A finished run in, ``results.jsonl`` out: the bytes of its parts, one after another."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic
from llmbatch.folder.folder import RESULTS
from llmbatch.folder.records import reading
from llmbatch.sinks.base import Finished, Output

# what kernels and file systems say that cannot copy within the kernel between these two files
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EPERM})


def write_results(finished: Finished, output: Output) -> list[Path]:
    """Put the parts together, where they are not the file itself.

    Where the file system can, their bytes are shared or copied without passing through here.
    """
    path = output.folder / RESULTS
    if list(finished.parts) == [path]:
        return [path]
    with atomic(path) as target:
        for part in finished.parts:
            with reading(part):
                source = part.open("rb", buffering=0)
            with source:
                size = os.fstat(source.fileno()).st_size
                before = target.tell()
                _copy(source, target, size)
                if target.tell() - before != size:
                    raise FolderError(f"{part}: changed while it was copied; see llmbatch audit")
    return [path]


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    target.flush()
    left = size if hasattr(os, "copy_file_range") else 0
    try:
        while left and (count := os.copy_file_range(source.fileno(), target.fileno(), left)):
            left -= count
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    target.seek(0, os.SEEK_END)
    shutil.copyfileobj(source, target, 1 << 20)  # the rest, or all of it
