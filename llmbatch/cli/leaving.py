"""The end of a command in; the end of its process out, at once."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading


def leave(end: SystemExit) -> None:
    """End this process with the code of ``end``, where an engine's libraries were imported; else return.

    Python takes them apart piece by piece, which lasts for seconds, and the system takes all back at once. Threads are waited for,
    and what asked to be called at the end is called, as ever.
    """
    code = end.code
    if sys.modules.get("torch") is None or not (code is None or isinstance(code, int)):
        return
    getattr(threading, "_shutdown", lambda: None)()  # Python's own wait for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


__all__ = ["leave"]
