"""What every way of watching needs: a stream that stays the terminal, whatever an engine does to descriptors 1 and 2."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def own_stream(stream: TextIO) -> Iterator[TextIO]:
    """A stream of our own to the same place: an engine may point descriptors 1 and 2 at its log while it runs."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # not a file: a test's, a notebook's
        yield stream
        return
    copy = os.fdopen(descriptor, "w", encoding=stream.encoding, errors=stream.errors)
    try:
        yield copy
    finally:
        with contextlib.suppress(OSError):  # a pipe whose reader is gone
            copy.close()
