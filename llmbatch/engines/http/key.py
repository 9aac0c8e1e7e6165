"""The name of an environment variable in; the key for a server that it holds out."""

from __future__ import annotations

import os

from llmbatch.core.errors import JobError


def key_in(variable: str | None) -> str | None:
    """The key; ``None`` where no variable is named. Raises ``JobError`` where it holds none, without a word of what it holds."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise JobError(
            f"engine.key_env: the environment variable {variable} is not set, and is to hold the server's key"
        )
    if not key.isascii() or not key.isprintable():
        raise JobError(
            f"engine.key_env: the environment variable {variable} holds what is no key: characters that HTTP cannot send"
        )
    return key


__all__ = ["key_in"]
