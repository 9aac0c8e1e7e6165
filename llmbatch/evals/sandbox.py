"""A Python program that is not trusted in; whether it ran to its end without an error out.

It runs in a process of its own: an isolated interpreter (``-I``) with an empty environment in an empty folder that is removed
afterwards, with limits on processor time, memory, and the size and number of files, and is killed with all that it started. Where
the system lets a user make namespaces (``unshare``), it has no network, can reach no process but its own, and can write nowhere
but in its folder.

What it is not: a virtual machine. The program can read what the user can read, and one that is bent on it can find out how to pass.
Where ``can_isolate`` is false it can also write where the user can write, and reach the network: run it in a container there.
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
from pathlib import Path
from typing import NamedTuple

UNISOLATED = (
    "this system does not let you make namespaces (unshare), so the code that the model writes can reach the network and write "
    "where you can: stop here, and run it in a container, if that is not meant"
)

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--"]
_LAUNCHER = Path(__file__).with_name("launcher.py")
_SAID = 2000  # characters that are kept of what it says at its end
_PATIENCE = 10  # times the processor time that a program may take on a busy machine, sleeping included
_FILE_BYTES = 16 << 20


class Allowance(NamedTuple):
    """What a program may take."""

    seconds: int = 10
    memory_mb: int = 1024


class Executed(NamedTuple):
    """What became of a program: whether it passed, and the end of what it said."""

    passed: bool
    said: str


@cache
def can_isolate() -> bool:
    """Whether the system lets this user run a process apart: without a network, and with nothing to write to but its folder."""
    try:
        return _run("", Allowance(), isolated=True).passed
    except OSError:  # there is no unshare
        return False


def run_python(program: str, limits: Allowance) -> Executed:
    """Run a program. It passes if its last line is reached: leaving early, even with exit code 0, is no pass.

    What it may take is counted in processor time, so that the verdict does not depend on how busy the machine is.
    """
    return _run(program, limits, isolated=can_isolate())


def _run(program: str, limits: Allowance, *, isolated: bool) -> Executed:
    token = secrets.token_hex(16)
    given = {
        "RLIMIT_CPU": limits.seconds,
        "RLIMIT_AS": limits.memory_mb << 20,
        "RLIMIT_FSIZE": _FILE_BYTES,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
        # it counts all processes that the user has, unless they are in a space of their own
        **({"RLIMIT_NPROC": 64} if isolated else {}),
    }
    head = [token, "yes" if isolated else "no", *(f"{name}={value}" for name, value in given.items())]
    text = " ".join(head) + "\n" + program
    command = [*(_UNSHARE if isolated else []), sys.executable, "-I", str(_LAUNCHER)]
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
            process.communicate(text.encode("utf-8", "replace"), limits.seconds * _PATIENCE)
        except subprocess.TimeoutExpired:
            return Executed(False, f"it took longer than {limits.seconds * _PATIENCE} s")
        finally:
            _end(process)
        passed = process.returncode == 0 and _last(out.fileno()) == token
        return Executed(passed, _last(errors.fileno()))


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


__all__ = ["UNISOLATED", "Allowance", "Executed", "can_isolate", "run_python"]
