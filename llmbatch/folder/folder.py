"""The run folder: whose it is (``run.json``), who writes in it (the lock), where everything lies and what it holds.

``run.json`` holds the job's identity, the input's fingerprint and one entry a session. It is rewritten whole, atomically, when a
session begins and ends.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError, JobError
from llmbatch.core.files import atomic_write, writing
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Record
from llmbatch.core.words import clip, near
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import Replay
from llmbatch.folder.lock import Lock
from llmbatch.folder.order import ORDER, in_input_order, read_order
from llmbatch.folder.overlay import finished_retries, overlay
from llmbatch.folder.parts import Parts
from llmbatch.folder.records import part_lines, record_on
from llmbatch.report.report import Report

MANIFEST_VERSION = 1
JOB_FILE = "job.yaml"
RESULTS, ERRORS, ACCEPTED = "results.jsonl", "errors.jsonl", "accepted.jsonl"
REPORT, PAGE = "report.json", "report.html"
MANIFEST = "run.json"
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
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
        return _otherwise(self.came_out, came_out)

    @property
    def finished(self) -> bool:
        """Whether no row is owed: a session that begins, and may accept a longer input, takes that back until it has finished."""
        return bool(self.sessions) and self.sessions[-1]["outcome"] == "finished"


class RunFolder:
    """A run folder. What it holds may be read at any time; it is written to between ``open`` and ``close``, while we hold it.

    ``alike``: what of that which its job leaves open is to come out as it did elsewhere, as in ``Manifest.came_out``: a retry's
    records stand beside those of its run.
    """

    def __init__(self, path: Path, alike: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._alike = dict(alike or {})
        self.parts = Parts(path / "parts")
        self._lock = Lock(path / "lock")
        self.manifest: Manifest | None = None  # None: a new folder

    @property
    def lost(self) -> bool:
        """Whether another run took this folder over while we held it."""
        return self._lock.lost

    def open(self) -> str | None:
        """Make the folder if need be, lock it and read its manifest; returns a sentence where a dead run's lock was taken over.

        Raises ``JobError`` where it is a file, ``Locked``, ``FolderError`` for a folder that holds other things, or ``WriteError``.
        """
        try:
            if self.path.is_dir() and not (self.path / MANIFEST).exists():
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
            raise JobError(
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

    def record_lines(self) -> Iterator[bytes]:
        """Every line of results that there is up to now, in input order, also while a run goes on.

        They are those of the sealed parts and of the open journals, with the retries that are taken over laid over them. Raises
        ``FolderError``.
        """
        return overlay(self._own_lines(), finished_retries(self.path))

    def ledger(self) -> Ledger:
        """The account of the records that are safe, those of retries apart. Raises ``FolderError``."""
        total = Ledger()
        for window, replay in self._windows():
            total.merge(replay.ledger() if replay is not None else self.parts.sum_of([self.parts.meta(window)]))
        return total

    @property
    def begun(self) -> bool:
        """Whether a row was finished or an answer got. Raises ``FolderError``."""
        return any(replay is None or replay.lines or replay.outcomes for _, replay in self._windows())

    def bounds(self) -> list[Bounds]:
        """Which rows each window holds that something is known of, in order. Raises ``FolderError``."""
        return [self.parts.meta(n).bounds if replay is None else replay.bounds for n, replay in self._windows()]

    def _own_lines(self) -> Iterator[bytes]:
        if read_order(self.path) is not None:
            yield from in_input_order([
                self.parts.path(window) if replay is None else [line for _, line in sorted(replay.lines.items())]
                for window, replay in self._windows()
            ])  # fmt: skip
            return
        for window, replay in self._windows():
            if replay is None:
                yield from part_lines([self.parts.path(window)])
            else:
                yield from (line for _, line in sorted(replay.lines.items()))

    def open_lines(self) -> Iterator[bytes]:
        """The lines of results that are in journals, and not sealed yet. Raises ``FolderError``."""
        for _, replay in self._windows():
            if replay is not None:
                yield from (line for _, line in sorted(replay.lines.items()))

    def _windows(self) -> Iterator[tuple[int, Replay | None]]:
        """Every window that something is known of, in order: what its journal holds, or ``None`` for one that is sealed."""
        sealed, journals = self.parts.scan()
        for window in sorted(sealed | journals):
            replay = None
            if window in journals:
                try:
                    replay = self.parts.replay(window)
                except FolderError:
                    if not self.parts.path(window).exists():  # else sealed just now, by the run that goes on
                        raise
                else:
                    if replay is None:
                        continue
            yield window, replay

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
                f"{self.path}: was begun by another job; going on would mix its results. What changed: "
                f"{changes_in_words(changes)}. Give another --output, or the settings it was begun with"
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

    def adopt(self, manifest: Manifest) -> None:
        """Write down that the folder, which is new, holds a run that was done elsewhere."""
        self.manifest = manifest
        self._write()

    def disown(self) -> None:
        """Take back what ``adopt`` wrote down: what the folder holds is no whole run."""
        self.manifest = None
        with writing(self.path / MANIFEST):
            (self.path / MANIFEST).unlink(missing_ok=True)

    def refuse_otherwise(self, came_out: Mapping[str, str]) -> None:
        """Raise ``FolderError`` where going on would mix answers of two models, or of two precisions.

        ``came_out`` is how that comes out which the job leaves open, as far as it is known.
        """
        if others := _otherwise(self._before, came_out):
            instead = "name it to have the rows tried with what it is now" if self._alike else "give another --output"
            raise FolderError(
                f"{self.path}: what the job leaves open comes out otherwise than for the rows that are done, and going on would "
                f"mix two kinds of answers: {changes_in_words(others)}. Give that setting the value it had, or {instead}"
            )

    def settle(self, came_out: Mapping[str, str]) -> str | None:
        """Write down how that came out which the job leaves open, before anything is answered with it.

        Returns a sentence where the engine's version is another than before. Raises as ``refuse_otherwise`` does.
        """
        assert self.manifest is not None  # noqa: S101 - for the type checker
        before = self._before
        self.refuse_otherwise(came_out)
        known = {**self.manifest.came_out, **came_out}
        if self.manifest.came_out != known:
            self.manifest.came_out = known
            self._write()
        if before.get(ENGINE_VERSION, version := came_out.get(ENGINE_VERSION)) == version:
            return None
        return (
            f"{self.path}: was begun with {before[ENGINE_VERSION]} and goes on with {version}: answers may differ from what one "
            "version alone would give"
        )

    @property
    def _before(self) -> dict[str, str]:
        """What the rows that are done came out with, and those that they are to stand beside."""
        return {**self._alike, **(self.manifest.came_out if self.manifest is not None else {})}

    def mark_session(self, **facts: Any) -> None:
        """Write down of the session what later ones are to know, however it ends."""
        assert self.manifest is not None  # noqa: S101 - for the type checker
        self.manifest.sessions[-1].update(facts)
        self._write()

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
        atomic_write(self.path / MANIFEST, json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a run folder; ``None`` where there is none. Raises ``FolderError`` for a damaged or newer one."""
    file = path / MANIFEST
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


def begun_run(path: Path) -> Manifest:
    """The manifest of a folder that is to be a run's. Raises ``FolderError`` where no run has begun there."""
    if path.is_file():
        raise FolderError(f"{path}: is a file; give the run folder that it is of, the --output of a run")
    manifest = read_manifest(path)
    if manifest is not None:
        return manifest
    if not path.exists():
        there = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
        raise FolderError(f"{path}: there is no such folder{near(path.name, there)}; give the --output of a run")
    raise FolderError(f"{path}: no run has begun here (there is no run.json); is it the --output of a run?")


def read_report(path: Path) -> Report:
    """The report of a run folder. Raises ``FolderError`` where it is missing or damaged."""
    try:
        report: Report = json.loads((path / REPORT).read_bytes())
        if missing := [key for key in ("outcome", "exit_code", "rows", "notes", "sessions") if key not in report]:
            raise KeyError(*missing)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable_report(path, error) from error
    return report


def unreadable_report(path: Path, error: Exception) -> FolderError:
    """The error of a report in which something is missing, or of the wrong type."""
    return FolderError(f"{path / REPORT}: cannot be read: {error!r}; see llmbatch audit")


def find_report(path: Path) -> Report | None:
    """As ``read_report``; ``None`` where no session of the run came to its end yet."""
    return read_report(path) if (path / REPORT).exists() else None


def write_report(path: Path, report: Report) -> None:
    """Write the report of a run folder, whole or not at all. Raises ``WriteError``."""
    atomic_write(path / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")


def read_results(path: Path, name: str = RESULTS) -> Iterator[Record]:
    """The records of a finished run, as it wrote them, or some of them. Raises ``FolderError``."""
    file = path / name
    try:
        with file.open("rb") as lines:
            yield from map(record_on, lines)
    except (OSError, FolderError) as error:
        raise FolderError(f"{file}: cannot be read: {error}; see llmbatch audit {path}") from error


def _otherwise(before: Mapping[str, str], came_out: Mapping[str, str]) -> dict[str, str]:
    known = {key: value for key, value in before.items() if key in came_out and key != ENGINE_VERSION}
    return _changes(known, {key: came_out[key] for key in known})


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What differs between two identities: by key, in words."""
    return {
        key: _change(before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def changes_in_words(changes: Mapping[str, str]) -> str:
    """What changed, by setting, as part of a sentence."""
    return "; ".join(f"{key} {words}" for key, words in changes.items())


def _change(before: str | None, now: str | None) -> str:
    if before is not None and now is not None and _DIGEST.fullmatch(before) and _DIGEST.fullmatch(now):
        return "is another"
    return f"was {_value(before)}, now {_value(now)}"


def _value(value: str | None) -> str:
    return "not set" if value is None else clip(value, 60)


def _ours(name: str) -> bool:
    return name in {
        "parts",
        "lock",
        "job.yaml",
        "task.yaml",
        "evaluation.json",
        "prompt.yaml",
        "input.jsonl",
        "progress.json",
        ORDER,
    } or name.startswith(
        (".", "engine.log", "engine-", "lock.", "run.json", "job.yaml.", "input.jsonl.", "progress.json.")
    )
