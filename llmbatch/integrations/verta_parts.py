"""A part of a frame that was sent to a model in; the answer that an earlier call got to it out: a file a part, in a folder."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write, writing

_SUFFIX = ".part.json"


class KeptParts:
    """Answers by what was asked, at which URL. Equal parts have one answer. Headers, and so keys, are no part of it.

    Raises ``FolderError`` for a folder with other things in it, ``WriteError``.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.endswith((_SUFFIX, ".tmp")))
        if strangers:
            raise FolderError(
                f"{folder}: holds other things ({', '.join(strangers[:3])}): give a new or empty folder as output"
            )

    def get(self, body: bytes) -> Any:
        """The answer, or None."""
        path = self._path(body)
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise FolderError(f"{path}: cannot be read: {error}; remove it, and its part is asked for again") from error

    def put(self, body: bytes, answer: Any) -> None:
        atomic_write(self._path(body), json.dumps(answer, ensure_ascii=False).encode())

    def _path(self, body: bytes) -> Path:
        digest = blake2b(body, digest_size=16, key=blake2b(self._url.encode(), digest_size=32).digest()).hexdigest()
        return self._folder / f"{digest}{_SUFFIX}"


__all__ = ["KeptParts"]
