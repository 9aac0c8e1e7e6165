"""What a task and its executor's host say to each other: JSON over a socket of this machine, a batch of rows in a message.

    task -> host    {"job": TEXT, "rows": [...], "as_it_came": ..., "null": [...]}
    host -> task    {"answers": [[TEXT or null, ERROR or null], ...], "facts": {...}}, or {"error": KIND, "message": ...}

Answers come in the order of their batches. JSON, as whoever can open the socket is not to run code here by it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import EngineError, JobError, LlmbatchError, UsageError

_LONGEST = 35  # bytes
_SHORT = "/tmp"  # noqa: S108 - the folder in it is looked at before it is used
AHEAD = 2
"""Batches that a task has asked and not yet been answered: while one runs out the next is in the engine."""


class Answer(NamedTuple):
    """What became of one row; both are None for one that has no request, or whose answer is NULL."""

    text: str | None
    error: str | None


class Facts(NamedTuple):
    """What a host has done since its executor began; over restarts of the host, but for the engine that is up."""

    executor: str  # machine, process and its start
    engine_starts: int
    host_starts: int
    rows: int
    reused: int  # of them, those that took an answer that was there or on its way already: in the cache, or asked just before
    given_up: int = 0  # requests that were taken back from the engine, as their task had ended


class Asked(NamedTuple):
    """A batch as a host gets it."""

    job: str
    rows: Sequence[Mapping[str, Any]]
    as_it_came: bool
    null: Sequence[str]


def asked_bytes(asked: Asked) -> bytes:
    """A batch as a message."""
    return json.dumps(asked._asdict(), ensure_ascii=False).encode("utf-8", "surrogatepass")


def asked_from(message: bytes) -> Asked:
    """The batch of a message."""
    return Asked(**json.loads(message.decode("utf-8", "surrogatepass")))


def answered_bytes(answers: Sequence[Answer], facts: Facts) -> bytes:
    """The answers as a message."""
    body = {"answers": answers, "facts": facts._asdict()}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def failed_bytes(error: LlmbatchError) -> bytes:
    """What kept a batch from being answered, as a message."""
    kind = "job" if isinstance(error, UsageError) else "engine"
    return json.dumps({"error": kind, "message": str(error)}).encode()


def answered_from(message: bytes) -> tuple[list[Answer], Facts]:
    """What a message of the host says. Raises the error that it tells of."""
    body = json.loads(message.decode("utf-8", "surrogatepass"))
    if "error" in body:
        raise (JobError if body["error"] == "job" else EngineError)(body["message"])
    return [Answer(*answer) for answer in body["answers"]], Facts(**body["facts"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where the host of one executor is found: a folder of this user's on a local disk, beside those of the same application."""

    folder: Path

    @classmethod
    def of(cls, application: str, pid: int, started: int | None) -> Place:
        """Of the executor with this process. Raises ``EngineError`` for a folder that is somebody else's."""
        # the path of a socket has 107 bytes, and a container's own folder for temporary files may have a long name
        temporary = tempfile.gettempdir() if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST else _SHORT
        base = Path(temporary) / f"llmbatch-spark-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid() or base.stat().st_mode & 0o077:
            raise EngineError(
                f"{base}: is not a folder of this user's alone: remove it, or set TMPDIR to another place"
            )
        name = hashlib.sha256(application.encode()).hexdigest()[:16]
        folder = base / name / f"{pid}-{started or 0}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder)

    @property
    def socket(self) -> str:
        return str(self.folder / "host")

    @property
    def log(self) -> Path:
        return self.folder / "host.log"

    @property
    def counts(self) -> Path:
        """A line for everything that is counted over restarts of the host."""
        return self.folder / "counts.jsonl"

    @property
    def cache(self) -> Path:
        """The answers of the application on this machine: an executor that takes the place of one that was lost finds them."""
        return self.folder.parent / "answers.cache"

    @contextmanager
    def held(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock of this name, which ends with its process; gives whether it is held. Without ``wait`` it may not be."""
        with (self.folder / f"{name}.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


__all__ = [
    "AHEAD", "Answer", "Asked", "Facts", "Place", "answered_bytes", "answered_from", "asked_bytes", "asked_from", "failed_bytes",
]  # fmt: skip
