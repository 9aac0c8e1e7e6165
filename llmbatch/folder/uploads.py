"""Which files of a run are to be copied to somewhere else, and which are there: what makes a broken copy go on.

``uploads.json`` is the plan, written with the files; to ``uploads.done`` a line is appended as each of them has arrived.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write, writing

PLAN, _DONE = "uploads.json", "uploads.done"


class _Plan(TypedDict):
    to: str
    files: list[str]
    outdated: list[str]


class Uploads:
    """The copies of one run folder. ``arrived`` may be called by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def plan(self, to: str, names: Sequence[str]) -> None:
        """These files are new, and are all to be copied. Raises ``WriteError`` and ``FolderError``."""
        before = self._read()
        outdated = [] if before is None or before["to"] != to else [*before["outdated"], *before["files"]]
        plan = {"to": to, "files": list(names), "outdated": sorted({*outdated} - {*names})}
        done = self._folder / _DONE
        with writing(done):
            done.unlink(missing_ok=True)
        atomic_write(self._folder / PLAN, json.dumps(plan).encode() + b"\n")

    def owed(self, to: str) -> list[str] | None:
        """What is not there yet, in order; ``None`` where nothing was planned for this place. Raises ``FolderError``."""
        plan = self._read()
        if plan is None or plan["to"] != to:
            return None
        arrived = self._arrived()
        return [name for name in plan["files"] if name not in arrived]

    def planned(self) -> list[str]:
        """All that is to be copied, and was. Raises ``FolderError``."""
        plan = self._read()
        return [] if plan is None else plan["files"]

    def outdated(self) -> list[str]:
        """What earlier plans may have put there, and this one does not, such as other shards. Raises ``FolderError``."""
        plan = self._read()
        return [] if plan is None else plan["outdated"]

    def _arrived(self) -> set[str]:
        """What a kill cut off is no name: that file is copied again."""
        names = set()
        with contextlib.suppress(FileNotFoundError):
            for line in (self._folder / _DONE).read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    names.add(json.loads(line))
        return names

    def _read(self) -> _Plan | None:
        path = self._folder / PLAN
        try:
            plan = json.loads(path.read_bytes())
            return {"to": plan["to"], "files": plan["files"], "outdated": plan["outdated"]}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path}: cannot be read: {error!r}; remove it, and all is copied again") from error

    def arrived(self, name: str) -> None:
        """Write down that a file is there. Raises ``WriteError``."""
        path = self._folder / _DONE
        with self._lock, writing(path), path.open("ab") as file:
            file.write(json.dumps(name).encode() + b"\n")
