"""The first lines of stdin, which are limits and a program, in; the program run within them, and a token on stdout at its end, out.

``evals/sandbox.py`` starts it as a script of its own, with an isolated interpreter: it imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

_BIND, _RECURSIVE, _READ_ONLY = 0x1000, 0x8000, 1  # of mount(2) and mount_setattr(2)
_MOUNT_SETATTR, _HERE = 442, -100  # its number is the same for every processor
_NO_NEW_PRIVILEGES = 38  # of prctl(2)
_CAPABILITIES = 0x20080522  # the version of capset(2)


def main() -> None:
    token, isolated, *limits = sys.stdin.readline().split()
    program = sys.stdin.read()
    if isolated == "yes":
        _write_only_here()
    if child := os.fork():  # the first process of a process space is one that most signals do not reach
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    if isolated == "yes":
        _give_up_privileges()
    for limit in limits:
        name, _, value = limit.partition("=")
        resource.setrlimit(getattr(resource, name), (int(value), int(value)))
    said = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102  # it is what this is for
    os.write(said, token.encode())


def _write_only_here() -> None:
    """Make every file system read-only, in this mount space alone, but for the current folder."""
    libc, here = ctypes.CDLL(None, use_errno=True), os.fsencode(os.getcwd())  # noqa: PTH109  # bytes are what the system takes
    _see(libc.mount(here, here, None, _BIND, None))
    for folder, flags, on, off in ((b"/", _RECURSIVE, _READ_ONLY, 0), (here, 0, 0, _READ_ONLY)):
        _see(libc.syscall(_MOUNT_SETATTR, _HERE, folder, flags, struct.pack("=QQQQ", on, off, 0, 0), 32))
    os.chdir(here)


def _give_up_privileges() -> None:
    """Give up what a process may do in a space that it made, so that it cannot be undone."""
    libc = ctypes.CDLL(None, use_errno=True)
    _see(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _see(libc.capset(struct.pack("=Ii", _CAPABILITIES, 0), bytes(24)))


def _see(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
