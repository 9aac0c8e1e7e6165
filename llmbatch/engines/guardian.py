"""Ends an engine's processes when the run that started them is killed: without it they would live on and hold the GPU.

The guardian is a small process of its own that imports nothing but what it needs to start in a few hundredths of a second. It
is told which processes to watch over, each with its start time so that a later process with the same number is safe, and waits
for the run to be gone: then it kills those that are still there.

    run -- "PID START\\n" --> guardian, through a pipe; end of file, or another parent, means that the run is gone
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

_POLL_SECONDS = 0.5  # a forked engine holds the pipe open too, so the parent is looked at as well


class Guardian:
    """Watches over processes until ``close``, or until this process is gone. ``watch`` may be called from any thread."""

    def __init__(self) -> None:
        import subprocess

        self._told: set[int] = set()
        self._process: Popen[bytes] = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid())],  # noqa: PTH100 - pathlib is slow to import
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C or a hang-up of the terminal is not for it
        )

    def watch(self, pids: Iterable[int]) -> None:
        """Watch over these processes too; those told before, and those gone already, are skipped."""
        news = [(pid, started) for pid in pids if pid not in self._told and (started := start_time(pid)) is not None]
        pipe = self._process.stdin
        if not news or pipe is None:
            return
        self._told.update(pid for pid, _ in news)
        try:
            pipe.write(b"".join(b"%d %d\n" % pair for pair in news))
            pipe.flush()
        except BrokenPipeError:  # somebody killed the guardian: the run goes on without it
            return

    def close(self) -> None:
        """Stop watching, and end what it watched over if that is still there. May be called twice."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self._process.wait()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; ``None`` where there is no such process, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _main(parent: int) -> None:
    watched: dict[int, int] = {}
    rest = b""
    gone = False
    while not gone:
        gone = os.getppid() != parent  # looked at first, so that what was told before is still read
        while select.select([0], [], [], 0 if gone else _POLL_SECONDS)[0]:
            data = os.read(0, 65536)
            if not data:
                gone = True
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                number, started_at = line.split()
                watched[int(number)] = int(started_at)
    for pid, started in watched.items():
        if start_time(pid) == started:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue


if __name__ == "__main__":
    _main(int(sys.argv[1]))
