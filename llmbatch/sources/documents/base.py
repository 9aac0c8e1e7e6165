"""The contract of a kind of document: the bytes of a file in, its text and its title out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Document(NamedTuple):
    """What a file holds. A text without anything but white space counts as empty."""

    text: str
    title: str | None = None


class Unreadable(Exception):
    """A file that holds no document of its kind: what was seen, and what to try, without the file's name."""


_MIB = 1 << 20
LIMITS = {"text/html": 32 * _MIB, "application/pdf": 256 * _MIB}
"""Bytes of a file by its kind: a page takes many times its length in memory, and of a PDF it is pictures that make it long."""

MAX_TEXT = 64 * _MIB
"""Bytes of any other file, and characters of a text. What is longer is no row, and would cost memory many times its length."""

ReadDocument = Callable[[bytes], Document]
"""Raises ``Unreadable``."""


def too_long(limit: int) -> Unreadable:
    return Unreadable(f"longer than {limit // _MIB} MiB; split it into several")
