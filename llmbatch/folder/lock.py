"""One writer for a run folder: a lock file that says which host and process has it, and that is taken over when its owner is dead.

No advisory lock of the kernel is used, because those do not hold on every network file system. The owner touches its file
every few seconds, so that a run on another host, or in another container, can tell that it lives without seeing its process. Clocks
are set now and then, so none is believed alone: a process is known by its start since the boot, and who seems silent is watched.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from llmbatch.core.errors import FolderError, Locked
from llmbatch.core.files import writing
from llmbatch.engines.guardian import start_time

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0  # without a heartbeat, where the owner's process cannot be seen
WATCHED_SECONDS = 2.5 * HEARTBEAT_SECONDS  # in which a run that lives gives a sign of it
# what file systems say that have no hard links
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


class Lock:
    """Held from ``acquire`` to ``release``. ``lost`` is set when another run took the folder over all the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def acquire(self) -> str | None:
        """Take the lock; returns a sentence about the dead run that it was taken from, or ``None``.

        Raises ``Locked``, naming host and process, while another run lives, and ``WriteError``.
        """
        taken_from: str | None = None
        while True:
            try:
                self._create()
                break
            except FileExistsError:
                owner = _owner_of(self._path)
                if owner is None:
                    continue  # released between the two looks
                if not self._is_dead(owner):
                    raise Locked(
                        f"{self._path.parent}: another run has this folder: process {owner.get('pid')} on {owner.get('host')}, "
                        f"since {owner.get('since')}. Wait for it, stop it, or give another --output{_patience(owner)}"
                    ) from None
                if self._remove(owner):
                    taken_from = f"process {owner.get('pid')} on {owner.get('host')} is dead; its run is taken over"
            except OSError:
                with writing(self._path):
                    raise
        self._thread = threading.Thread(target=self._beat, name="llmbatch-lock", daemon=True)
        self._thread.start()
        return taken_from

    def release(self) -> None:
        """Give the folder free, if it is still ours. May be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            with contextlib.suppress(OSError):  # a file system that is gone: the run is over all the same
                owner = _owner_of(self._path)
                if owner is not None and owner.get("token") == self._token:
                    self._path.unlink(missing_ok=True)

    def _create(self) -> None:
        """Make the file whole or not at all: written under another name, then linked to its own, which fails if that exists."""
        temporary = self._path.with_name(f"{self._path.name}.{self._token}")
        body = {
            "host": socket.gethostname(),
            "place": _place(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "process_ticks": start_time(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": self._token,
        }
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(body))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, self._path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with self._path.open("x", encoding="utf-8") as file:
                    file.write(json.dumps(body))
        finally:
            temporary.unlink(missing_ok=True)

    def _is_dead(self, owner: dict[str, Any]) -> bool:
        seen = alive(owner)
        if seen is not None:
            return not seen
        silence = self._silence()
        if -HEARTBEAT_SECONDS <= silence <= DEAD_AFTER_SECONDS:
            return False
        # silent for long, or the clock was set forward just now; or its last sign is of the future, before the clock was set back
        return not self._gives_a_sign(WATCHED_SECONDS if silence > 0 else DEAD_AFTER_SECONDS)

    def _gives_a_sign(self, seconds: float) -> bool:
        """Whether the owner touches its file in this time, by a clock that nobody sets; or is gone."""
        until = time.monotonic() + seconds
        try:
            before = self._path.stat().st_mtime_ns
            while time.monotonic() < until:
                time.sleep(0.2)
                if self._path.stat().st_mtime_ns != before:
                    return True
        except FileNotFoundError:
            return True
        return False

    def _silence(self) -> float:
        """Seconds since the owner's last heartbeat, by the file system's own clock: hosts' clocks differ."""
        probe = self._path.with_name(f"{self._path.name}.{self._token}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, owner: dict[str, Any]) -> bool:
        """Take a dead owner's file away; ``False`` where another run was faster. Only one of several can win the rename."""
        aside = self._path.with_name(f"{self._path.name}.{self._token}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return False
        moved = _owner_of(aside)
        if moved is not None and moved.get("token") != owner.get("token"):
            try:  # what was renamed is a new owner's: give it back
                os.link(aside, self._path)
            finally:
                aside.unlink()
            return False
        aside.unlink()
        return True

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                owner = _owner_of(self._path)
                if owner is None or owner.get("token") != self._token:
                    self.lost = True
                    return
                os.utime(self._path)
            except OSError:
                continue  # a network file system that does not answer now: the next beat tries again


def read_lock(path: Path) -> dict[str, Any] | None:
    """Who has a run folder, or ``None``. Raises ``FolderError`` where the file says nothing that can be understood."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{path}: the lock cannot be read ({error}); if no run is going on, remove the file"
        ) from error
    if not isinstance(owner, dict):
        raise FolderError(f"{path}: the lock cannot be understood; if no run is going on, remove the file")
    return owner


def alive(owner: dict[str, Any]) -> bool | None:
    """Whether the process that a lock names runs; ``None`` where it is on another host or in a container and cannot be seen."""
    if owner.get("place") != _place():
        return None
    try:
        return _runs(int(owner["pid"]), owner)
    except (KeyError, ValueError, TypeError):
        return False


def _owner_of(path: Path) -> dict[str, Any] | None:
    """As ``read_lock``; a file that says nothing is of an owner that cannot be seen, and so dead when it is silent."""
    try:
        owner = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _place() -> str:
    """Where a process number means the same process: host, boot and namespace; containers of one name may have others."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _patience(owner: dict[str, Any]) -> str:
    if alive(owner) is not None:
        return ""
    return (
        f"; its process cannot be seen from here: without a sign of life for {DEAD_AFTER_SECONDS:g} s it counts as dead"
    )


def _runs(pid: int, owner: dict[str, Any]) -> bool:
    """Whether that very process runs. Its number is used again; the time at which it began is not."""
    if (ticks := owner.get("process_ticks")) is not None:
        return bool(start_time(pid) == ticks)
    try:  # a system without /proc
        process = psutil.Process(pid)
        same = abs(process.create_time() - float(owner["process_started"])) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
