"""What an engine behind servers has to say, each message once, in; lines of its log out."""

from __future__ import annotations

import time
from pathlib import Path

_KEPT = 10_000


class Log:
    """The engine's log file, made when there is something to say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: set[str] = set()

    def once(self, message: str) -> None:
        """Say it, unless it was said; so many different ones at most, and then that no others follow."""
        if message in self._said or len(self._said) > _KEPT:
            return
        self._said.add(message)
        self.say(
            message if len(self._said) <= _KEPT else f"{_KEPT:,} different messages are here by now: no others follow"
        )

    def say(self, message: str) -> None:
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


__all__ = ["Log"]
