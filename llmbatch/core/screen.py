"""Stdin, stdout and stderr of a command in; the same, such that what cannot be read from or shown there fails no run."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_ESCAPE = "llmbatch.escape"


def open_streams() -> None:
    """Make sure that the process has all three: a file of the run must not get the number of one that was closed.

    What was closed becomes a stream from or to nowhere. A letter that the screen does not have is written as ``\\u2026``, which
    JSON reads as that letter again.
    """
    codecs.register_error(_ESCAPE, _escaped)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPE)


@contextlib.contextmanager
def shown(stream: TextIO) -> Iterator[None]:
    """What is written to the stream in this block is on the screen after it, as far as it can be: what cannot is dropped.

    The disk may be full that it goes to, or the reader of a pipe gone. From then on the stream leads nowhere.
    """
    try:
        yield
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # not a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2)), error.end
