"""A file of API keys in; whose a key is, found in a time that tells nothing about it, out.

A line is ``NAME KEY [priority=N] [weight=W]``; several keys of one name have the same files and batches. Only digests of the keys
are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbatch.core.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_SHORTEST = 16  # characters: what is shorter can be guessed
_PRIORITIES = range(-10, 11)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose files and batches are asked for. Without API keys there is one, without a name."""

    name: str = ""
    priority: int = 0  # the highest that its batches may have
    weight: float = 1.0  # its batches' share of the engine, beside those of others with the same priority


ANYBODY = Owner(priority=max(_PRIORITIES))


class Keys:
    """The API keys of a server. False where there is none: then everybody is let in."""

    def __init__(self, known: dict[bytes, Owner] | None = None) -> None:
        self._known = known or {}

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Raises ``UsageError`` for a file that cannot be used; no key is repeated in its words."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: the API keys cannot be read: {error}") from error
        known = dict(_entries(path, lines))
        if not known:
            raise UsageError(f"{path}: holds no API key; a line is NAME KEY, such as alice and 32 random characters")
        return cls(known)

    def __bool__(self) -> bool:
        return bool(self._known)

    def owner(self, key: str | None) -> Owner | None:
        """Whose the key is, or ``None``. Every known key is compared, to its end."""
        if not self._known:
            return ANYBODY
        if key is None:
            return None
        digest, found = _digest(key), None
        for known, owner in self._known.items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found


def _entries(path: Path, lines: list[str]) -> Iterator[tuple[bytes, Owner]]:
    owners: dict[str, Owner] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}:{number}"
        if len(words) < 2 or not _NAME.fullmatch(words[0]):
            raise UsageError(f"{where}: a line is NAME KEY [priority=N] [weight=W], NAME of letters, digits and _.@-")
        name, key, *options = words
        if len(key) < _SHORTEST:
            raise UsageError(f"{where}: the key of {name} is shorter than {_SHORTEST} characters, and could be guessed")
        found = _options(where, options)
        owner = Owner(name, int(found.get("priority", 0)), found.get("weight", 1.0))
        if owners.setdefault(name, owner) != owner:
            raise UsageError(f"{where}: {name} has another priority or weight than on an earlier line")
        yield _digest(key), owner


def _options(where: str, options: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            if name == "priority" and int(value) in _PRIORITIES:
                found[name] = int(value)
            elif name == "weight" and 0 < float(value) <= 1000:
                found[name] = float(value)
            else:
                raise ValueError(name)
        except ValueError:
            raise UsageError(
                f"{where}: {option!r} is no option: priority=N is from {_PRIORITIES[0]} to {_PRIORITIES[-1]}, weight=W above 0"
            ) from None
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


__all__ = ["ANYBODY", "Keys", "Owner"]
