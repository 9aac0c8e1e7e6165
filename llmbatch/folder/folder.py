"""The run folder: whose it is (``run.json``), who writes in it (the lock), and where everything lies.

``run.json`` holds the job's identity, the input's fingerprint and one entry a session. It is rewritten whole, atomically, when a
session begins and ends.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write, writing
from llmbatch.folder.lock import Lock
from llmbatch.folder.parts import Parts

MANIFEST_VERSION = 1
ENGINE_VERSION = "engine (version)"
"""The one thing of what came out that may change between the sessions of a run; it is said."""


@dataclass(slots=True)
class Manifest:
    """The content of ``run.json``. Times are seconds since the epoch."""

    identity: dict[str, str]
    fingerprint: list[dict[str, Any]]
    created: float
    sessions: list[dict[str, Any]] = field(default_factory=list)
    came_out: dict[str, str] = field(default_factory=dict)
    """What the job leaves open, as it was for the rows that are done; keys as in the identity."""

    def changes(self, identity: Mapping[str, str]) -> dict[str, str]:
        """What differs in another identity: by key, in words. A setting that says what came out without it is no change."""
        same = {key: value for key, value in self.came_out.items() if identity.get(key) == value}
        return _changes({**self.identity, **same}, identity)

    def otherwise(self, came_out: Mapping[str, str]) -> dict[str, str]:
        """What came out otherwise than for the rows that are done: by key, in words, the engine's version apart."""
        known = {key: value for key, value in self.came_out.items() if key in came_out and key != ENGINE_VERSION}
        return _changes(known, {key: came_out[key] for key in known})


class RunFolder:
    """A run folder that is held by this process between ``open`` and ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = Parts(path / "parts")
        self._lock = Lock(path / "lock")
        self.manifest: Manifest | None = None  # None: a new folder

    @property
    def lost(self) -> bool:
        """Whether another run took this folder over while we held it."""
        return self._lock.lost

    def open(self) -> str | None:
        """Make the folder if need be, lock it and read its manifest; returns a sentence where a dead run's lock was taken over.

        Raises ``Locked``, ``FolderError`` for a folder that holds something else, or ``WriteError``.
        """
        try:
            if self.path.is_dir() and not (self.path / "run.json").exists():
                strangers = [e.name for e in os.scandir(self.path) if not _ours(e.name)]
                if strangers:
                    raise FolderError(
                        f"{self.path}: the folder holds files that are not llmbatch's ({', '.join(sorted(strangers)[:3])}); "
                        "give an empty or a new folder as --output"
                    )
            self.parts.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            places = (self.parts.folder, *self.parts.folder.parents)
            file = next((place for place in places if place.exists() and not place.is_dir()), self.path)
            raise FolderError(
                f"{self.path}: cannot be a run folder, as {file} is a file; --output names a folder: give an empty or a new one"
            ) from None
        except OSError:
            with writing(self.path):
                raise
        taken = self._lock.acquire()
        try:
            self.manifest = read_manifest(self.path)
        except BaseException:
            self._lock.release()
            raise
        return taken

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What the manifest says of the sessions up to now, each with what it spent, once that is known."""
        return self.manifest.sessions if self.manifest is not None else []

    @property
    def created(self) -> int:
        """When the run was begun, in Unix seconds."""
        return int(self.manifest.created) if self.manifest is not None else 0

    def crashes(self, done: int) -> int:
        """How many sessions up to now were killed, one after another, without adding to what was ``done``: records and answers."""
        count = 0
        for session in reversed(self.manifest.sessions if self.manifest is not None else []):
            if session["outcome"] is not None or session.get("done_before") != done:
                break
            count += 1
        return count

    def begin_session(self, identity: dict[str, str], fingerprint: list[dict[str, Any]], done: int) -> int:
        """Write down that a session begins; returns its number, from 1. Raises ``FolderError`` where the identity is another's.

        ``done`` counts the records and answers that are there already.
        """
        if self.manifest is None:
            self.manifest = Manifest(identity, fingerprint, time.time())
        elif changes := self.manifest.changes(identity):
            raise FolderError(
                f"{self.path}: was begun by another job; going on would mix its results. What changed: {_listed(changes)}. "
                "Give another --output, or the settings it was begun with"
            )
        self.manifest.identity, self.manifest.fingerprint = identity, fingerprint
        self.manifest.sessions.append(
            {
                "started": time.time(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "done_before": done,
                "outcome": None,  # stays so where the session is killed
            }
        )
        self._write()
        return len(self.manifest.sessions)

    def refuse_otherwise(self, came_out: Mapping[str, str]) -> None:
        """Raise ``FolderError`` where going on would mix answers of two models, or of two precisions.

        ``came_out`` is how that comes out which the job leaves open, as far as it is known.
        """
        if self.manifest is not None and (others := self.manifest.otherwise(came_out)):
            raise FolderError(
                f"{self.path}: what the job leaves open comes out otherwise than for the rows that are done, and going on would "
                f"mix two kinds of answers: {_listed(others)}. Give that setting the value it had, or give another --output"
            )

    def settle(self, came_out: Mapping[str, str]) -> str | None:
        """Write down how that came out which the job leaves open, before anything is answered with it.

        Returns a sentence where the engine's version is another than before. Raises as ``refuse_otherwise`` does.
        """
        assert self.manifest is not None  # noqa: S101 - for the type checker
        before = self.manifest.came_out
        self.refuse_otherwise(came_out)
        self.manifest.came_out = {**before, **came_out}
        if self.manifest.came_out != before:
            self._write()
        if before.get(ENGINE_VERSION, version := came_out.get(ENGINE_VERSION)) == version:
            return None
        return (
            f"{self.path}: was begun with {before[ENGINE_VERSION]} and goes on with {version}: answers may differ from what one "
            "version alone would give"
        )

    def end_session(self, outcome: str, **facts: Any) -> None:
        """Write down how the session ended."""
        if self.manifest is not None and self.manifest.sessions:
            self.manifest.sessions[-1].update({"ended": time.time(), "outcome": outcome, **facts})
            self._write()

    def close(self) -> None:
        """Release the lock. May be called twice."""
        self._lock.release()

    def _write(self) -> None:
        assert self.manifest is not None  # noqa: S101 - for the type checker
        body = {
            "llmbatch_run": MANIFEST_VERSION,
            "created": self.manifest.created,
            "identity": self.manifest.identity,
            "came_out": self.manifest.came_out,
            "fingerprint": self.manifest.fingerprint,
            "sessions": self.manifest.sessions,
        }
        atomic_write(self.path / "run.json", json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a run folder; ``None`` where there is none. Raises ``FolderError`` for a damaged or newer one."""
    file = path / "run.json"
    try:
        data = json.loads(file.read_bytes())
        version = data["llmbatch_run"]
        if version > MANIFEST_VERSION:
            raise FolderError(f"{file}: written by a newer llmbatch (version {version}); upgrade llmbatch to go on")
        return Manifest(
            data["identity"], data["fingerprint"], data["created"], data["sessions"], data.get("came_out", {})
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{file}: cannot be read as a run's manifest: {error!r}") from error


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What differs between two identities: by key, in words."""
    return {
        key: f"was {_short(before.get(key))}, now {_short(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _listed(changes: Mapping[str, str]) -> str:
    return "; ".join(f"{key} {words}" for key, words in changes.items())


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= 60 else value[:57] + "..."


def _ours(name: str) -> bool:
    return name in {"parts", "lock", "job.yaml", "input.jsonl", "engine.log", "progress.json"} or name.startswith(
        (".", "lock.", "run.json", "job.yaml.", "input.jsonl.", "progress.json.")
    )
