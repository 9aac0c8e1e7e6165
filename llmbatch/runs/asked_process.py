"""The name of a module in; a process that runs it, and answers lines of JSON with lines of JSON, out.

It ends with this process: when that is killed, nothing more comes to it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core import errors
from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.imports import environment


class AskedProcess:
    """Asked by one thread at a time. What it prints besides its answers goes to ``log``."""

    def __init__(self, module: str, log: Path, begin: Mapping[str, Any] | None = None) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=file, text=True, encoding="utf-8", start_new_session=True,
            )  # fmt: skip
        if begin is not None:
            self._send(begin)

    def __enter__(self) -> AskedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer. Raises what it says that went wrong, and ``RunError`` where it ended."""
        self._send(message)
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        line = self._process.stdout.readline()
        if not line:
            raise RunError(
                f"a process that makes the order of the corpus ended by itself ({self._process.wait()}): {self._complaint()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"], RunError)
            raise kind(answer["message"]) if issubclass(kind, LlmbatchError) else RunError(answer["message"])
        return answer

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(BrokenPipeError):  # it has ended, and is asked for its answer in vain
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _complaint(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing"


__all__ = ["AskedProcess"]
