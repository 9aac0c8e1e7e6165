"""A Python program that is not trusted in; whether it ran to its end without an error out.

It runs in a process of its own: an isolated interpreter (``-I``) with an empty environment in an empty folder that is removed
afterwards, with limits on processor time, memory, and the size and number of files, and is killed with all that it started. Where
the system lets a user make namespaces (``unshare``), it has no network, and its processes are in a space of their own.

What it is not: a virtual machine. The program can read what the user can read, and write where the user can write outside of its
folder. Where ``can_isolate`` is false it can also reach the network. Run what you would not run by hand in a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from typing import NamedTuple

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--"]
_SAID = 2000  # characters that are kept of what it says at its end
_PATIENCE = 10  # times the processor time that a program may take on a busy machine, sleeping included

_FILE_BYTES = 16 << 20

_LAUNCHER = """
import os, resource, sys
token, seconds, memory, file_size, processes = sys.stdin.readline().split()
source = sys.stdin.read()
if os.fork():  # the first process of a process space is one that most signals do not reach
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
end = os.dup(1)
os.dup2(2, 1)
sys.stdout = sys.stderr
limits = {"CPU": seconds, "AS": memory, "FSIZE": file_size, "NOFILE": 64, "CORE": 0, "NPROC": processes}
for name, value in limits.items():
    if int(value) >= 0:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(value), int(value)))
exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
os.write(end, token.encode())
"""


class Limits(NamedTuple):
    """What a program may take."""

    seconds: int = 10
    memory_mb: int = 1024


class Verdict(NamedTuple):
    """What became of a program: whether it passed, and the end of what it said."""

    passed: bool
    said: str


@cache
def can_isolate() -> bool:
    """Whether the system lets this user run a process without a network and in a process space of its own."""
    try:
        done = subprocess.run([*_UNSHARE, "true"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def run_python(program: str, limits: Limits) -> Verdict:
    """Run a program. It passes if its last line is reached: leaving early, even with exit code 0, is no pass.

    What it may take is counted in processor time, so that the verdict does not depend on how busy the machine is.
    """
    token = secrets.token_hex(16)
    isolated = can_isolate()
    # a limit on processes counts all that the user has, unless they are in a space of their own
    head = [token, limits.seconds, limits.memory_mb << 20, _FILE_BYTES, 64 if isolated else -1]
    given = " ".join(map(str, head)) + "\n" + program
    command = [*(_UNSHARE if isolated else []), sys.executable, "-I", "-c", _LAUNCHER]
    with (
        tempfile.TemporaryDirectory(prefix="llmbatch-code-") as folder,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder, "PATH": os.defpath},
            start_new_session=True,
        )
        try:
            process.communicate(given.encode("utf-8", "replace"), limits.seconds * _PATIENCE)
        except subprocess.TimeoutExpired:
            return Verdict(False, f"it took longer than {limits.seconds * _PATIENCE} s")
        finally:
            _end(process)
        passed = process.returncode == 0 and _last(out.fileno()) == token
        return Verdict(passed, _last(errors.fileno()))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and what it started; of an isolated one nothing outlives its first process, which is killed with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _last(handle: int) -> str:
    """The end of what is in a file."""
    size = os.fstat(handle).st_size
    return os.pread(handle, _SAID, max(size - _SAID, 0)).decode("utf-8", "replace").strip()


__all__ = ["Limits", "Verdict", "can_isolate", "run_python"]
