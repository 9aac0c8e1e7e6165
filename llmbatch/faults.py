"""Fault points: places where a test kills the process on purpose, so that what must survive a kill there is seen to survive it.

``LLMBATCH_FAULT=name:3`` ends the process by SIGKILL the third time that it passes the point ``name``. Unset, a point costs
one look at a module variable.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("LLMBATCH_FAULT", "").partition(":")
_left = int(_count or 1)


def point(name: str) -> None:
    """Pass a fault point; does nothing unless the environment names it."""
    if _name:
        _pass(name)


def _pass(name: str) -> None:
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
