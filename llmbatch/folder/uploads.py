"""Which files of a run are to be copied to somewhere else, and which are there: what makes a broken copy go on.

``uploads.json`` is the plan, written with the files; to ``uploads.done`` a line is appended as each of them has arrived.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write, writing

_PLAN, _DONE = "uploads.json", "uploads.done"


class Uploads:
    """The copies of one run folder. ``arrived`` may be called by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def plan(self, to: str, names: Sequence[str]) -> None:
        """These files are new, and are all to be copied. Raises ``WriteError``."""
        done = self._folder / _DONE
        with writing(done):
            done.unlink(missing_ok=True)
        atomic_write(self._folder / _PLAN, json.dumps({"to": to, "files": list(names)}).encode() + b"\n")

    def owed(self, to: str) -> list[str] | None:
        """What is not there yet, in order; ``None`` where nothing was planned for this place. Raises ``FolderError``."""
        path = self._folder / _PLAN
        try:
            plan = json.loads(path.read_bytes())
            done = self._folder / _DONE
            # a last line that was cut off is no name, and that file is copied again
            arrived = {json.loads(line) for line in done.read_bytes().split(b"\n")[:-1]} if done.exists() else set()
            return [name for name in plan["files"] if name not in arrived] if plan["to"] == to else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path}: cannot be read: {error!r}; remove it, and all is copied again") from error

    def arrived(self, name: str) -> None:
        """Write down that a file is there. Raises ``WriteError``."""
        path = self._folder / _DONE
        with self._lock, writing(path), path.open("ab") as file:
            file.write(json.dumps(name).encode() + b"\n")
