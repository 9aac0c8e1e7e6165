"""What a part of this folder showed: one row of ``RESULTS.md``, with what ran, its version, and whether it passed.

A part is a module beside this one, ``NAME.py``, with ``def results() -> Iterator[Shown]``. What needs a package that contradicts
ours runs in the environment of a peer (``eval/peers/peers.mk``): ``from_peer`` starts a program there, ``NAME_peer.py``, which
prints its rows. To import this module it appends its own folder to ``sys.path``, behind what is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "tests" / "examples"
_SECONDS = 1800.0
_WITH_US = (
    ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
)  # a part that is killed leaves nothing running
_SAID = 300  # characters of an error that are told


class Missing(Exception):
    """Something that is to be tried is not on this machine; the message says what, and how to get it."""


class Shown(NamedTuple):
    """One claim and what came of it. ``passed`` is None where it could not run: that counts as not shown, and ``said`` is why."""

    system: str
    claim: str
    with_what: str  # the real client, server or library that it ran against
    version: str
    passed: bool | None
    said: str

    def as_line(self) -> str:
        """The row as a line of JSON, as a program in a peer's environment prints it."""
        return json.dumps(self._asdict(), ensure_ascii=False)


def tried(system: str, claim: str, with_what: str, number: str, show: Callable[[], str]) -> Shown:
    """The row for what ``show`` does: it returns what is to be said, or raises. ``number`` is the version of ``with_what``."""
    try:
        return Shown(system, claim, with_what, number, True, show())
    except Missing as missing:
        return Shown(system, claim, with_what, number, None, str(missing))
    except Exception as error:
        return Shown(system, claim, with_what, number, False, f"{type(error).__name__}: {error}"[:_SAID])


def version_of(package: str) -> str:
    """The version of an installed package. Raises ``Missing`` where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise Missing(f"{package} is not installed in {sys.prefix}") from None


def python_of(peer: str) -> Path:
    """The Python of a peer's environment. Raises ``Missing``."""
    found = ROOT / f".venv-{peer}" / "bin" / "python"
    if not found.exists():
        raise Missing(f".venv-{peer} is not there: make .venv-{peer}/ready")
    return found


def version_there(peer: str, package: str) -> str:
    """The version of a package in a peer's environment. Raises ``Missing``."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python_of(peer), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def from_peer(
    peer: str, program: Path, arguments: Sequence[str] = (), *, system: str, claim: str, seconds: float = _SECONDS
) -> Iterator[Shown]:
    """The rows that a program prints in a peer's environment, as they come; what else it prints is not looked at.

    Where it cannot run, or ends with an error, there is a row for that, under ``claim``.
    """
    try:
        python = python_of(peer)
    except Missing as missing:
        yield Shown(system, claim, peer, "", None, str(missing))
        return
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [*_WITH_US, "timeout", str(seconds), str(python), "-P", str(program), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stdout or ():
            if (row := _row(line)) is not None:
                yield row
    if process.returncode:
        why = "was not done in time" if process.returncode == 124 else f"ended with exit code {process.returncode}"
        yield Shown(system, claim, peer, "", False, f"{program.name} {why}")


def _row(line: str) -> Shown | None:
    try:
        return Shown(**json.loads(line))
    except (ValueError, TypeError):
        return None
