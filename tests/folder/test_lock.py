from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import FolderError, Locked, WriteError
from llmbatch.folder import lock as locks
from llmbatch.folder.lock import DEAD_AFTER_SECONDS, WATCHED_SECONDS, Lock, alive, read_lock


def write(path: Path, silent_for: float = 0.0, **owner: Any) -> None:
    """A lock of somebody else's, whose last sign of life lies so many seconds back."""
    body = {"host": "elsewhere", "place": "elsewhere", "pid": 1, "since": "today", "token": "theirs", **owner}
    path.write_text(json.dumps(body))
    then = time.time() - silent_for
    os.utime(path, (then, then))


@pytest.fixture
def own() -> dict[str, Any]:
    """What a lock of this very process says."""
    return {
        "host": socket.gethostname(),
        "place": locks._place(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Locks sleep on a clock of their own, which goes on as they do; how long they slept each time."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append, strftime=time.strftime)
    monkeypatch.setattr(locks, "time", clock)
    return slept


def test_a_lock_says_which_host_and_process_has_it_since_when(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock.acquire() is None
    owner = read_lock(tmp_path / "lock")
    assert owner is not None
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
    assert alive(owner) is True
    lock.release()


def test_release_removes_it_and_may_be_called_twice(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_second_one_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(Locked, match=f"process {os.getpid()} on {socket.gethostname()}, since .*another --output"):
        second.acquire()
    second.release()
    first.release()
    assert second.acquire() is None
    second.release()


def test_a_dead_processes_lock_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from llmbatch.folder.lock import Lock; "
        f"Lock(Path({str(tmp_path / 'lock')!r})).acquire(); os._exit(9)"
    )
    dead = subprocess.Popen([sys.executable, "-c", code])
    dead.wait()
    lock = Lock(tmp_path / "lock")
    taken = lock.acquire()
    assert taken is not None
    assert f"process {dead.pid} " in taken
    lock.release()


def test_a_process_number_that_is_used_again_is_not_taken_for_the_owner(tmp_path: Path, own: dict[str, Any]) -> None:
    write(tmp_path / "lock", **{**own, "process_started": own["process_started"] - 1000})
    lock = Lock(tmp_path / "lock")
    assert lock.acquire() is not None
    lock.release()


def test_a_process_is_known_whatever_its_clock_says_now(tmp_path: Path) -> None:
    """When a process began is reckoned from the clock of now, so after the clock was set it seems to have begun at another time."""
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    owner = read_lock(tmp_path / "lock")
    lock.release()
    assert owner is not None
    write(tmp_path / "lock", **{**owner, "process_started": owner["process_started"] + 3600})
    with pytest.raises(Locked):
        Lock(tmp_path / "lock").acquire()
    write(tmp_path / "lock", **{**owner, "process_ticks": owner["process_ticks"] - 1})
    again = Lock(tmp_path / "lock")
    assert again.acquire() is not None
    again.release()


@pytest.mark.parametrize("seconds", [DEAD_AFTER_SECONDS + 30, -3600], ids=["set forward", "set back"])
def test_an_owner_that_seems_silent_is_watched_before_it_counts_as_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    path = tmp_path / "lock"
    write(path, silent_for=seconds)
    beat = threading.Timer(1.0, os.utime, (path,))
    beat.start()
    with pytest.raises(Locked):
        Lock(path).acquire()
    beat.join()
    write(path, silent_for=seconds)
    monkeypatch.setattr(locks, "WATCHED_SECONDS", 1.0)
    monkeypatch.setattr(locks, "DEAD_AFTER_SECONDS", 1.0)
    lock = Lock(path)
    assert lock.acquire() == "process 1 on elsewhere is dead; its run is taken over"
    lock.release()


@pytest.mark.parametrize("place", ["elsewhere", "the same host, but another container"])
def test_an_owner_that_cannot_be_seen_lives_as_long_as_it_gives_signs_of_life(
    tmp_path: Path, own: dict[str, Any], place: str
) -> None:
    write(tmp_path / "lock", **{**own, "place": place, "pid": 1 << 22})
    with pytest.raises(Locked, match="cannot be seen from here: without a sign of life for 60 s it counts as dead"):
        Lock(tmp_path / "lock").acquire()


def test_an_owner_that_cannot_be_seen_and_is_silent_is_dead(tmp_path: Path, waited: list[float]) -> None:
    write(tmp_path / "lock", silent_for=DEAD_AFTER_SECONDS + 30)
    lock = Lock(tmp_path / "lock")
    assert lock.acquire() == "process 1 on elsewhere is dead; its run is taken over"
    assert sum(waited) >= WATCHED_SECONDS
    lock.release()


@pytest.mark.parametrize("content", ["", "[]", "{", "\0\0"])
def test_a_lock_that_says_nothing_is_waited_for_and_then_taken_over(
    tmp_path: Path, content: str, waited: list[float]
) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    with pytest.raises(Locked):
        Lock(path).acquire()
    with pytest.raises(FolderError, match="remove the file"):
        read_lock(path)
    then = time.time() - DEAD_AFTER_SECONDS - 30
    os.utime(path, (then, then))
    lock = Lock(path)
    lock.acquire()
    assert sum(waited) >= WATCHED_SECONDS
    lock.release()


def test_an_owner_notices_that_it_lost_the_lock_and_leaves_it_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    write(tmp_path / "lock")
    for _ in range(1200):
        if lock.lost:
            break
        time.sleep(0.1)
    assert lock.lost
    lock.release()
    owner = read_lock(tmp_path / "lock")
    assert owner is not None
    assert owner["token"] == "theirs"  # noqa: S105


def test_of_many_that_take_over_a_dead_ones_lock_at_once_one_gets_it(tmp_path: Path) -> None:
    write(tmp_path / "lock", silent_for=DEAD_AFTER_SECONDS + 30)
    code = f"""
import sys, time
from pathlib import Path
from llmbatch.core.errors import Locked
from llmbatch.folder import lock
from llmbatch.folder.lock import Lock
lock.WATCHED_SECONDS = 2.0
print("ready", flush=True)
sys.stdin.readline()
try:
    Lock(Path({str(tmp_path / "lock")!r})).acquire()
except Locked:
    print("refused")
else:
    print("got it", flush=True)
    time.sleep(600)
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    said = [run.stdout.readline().strip() for run in runs if run.stdout is not None]
    for run in runs:
        run.kill()
        run.communicate()
    assert sorted(said) == ["got it"] + ["refused"] * 5


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    said = (
        r"cannot write \S+/missing/lock: No such file or directory \(ENOENT\); create the folder that it is to lie in"
    )
    with pytest.raises(WriteError, match=said):
        Lock(tmp_path / "missing" / "lock").acquire()
