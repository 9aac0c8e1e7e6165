"""Mini-batches in, one after another, to a process that runs a scoring script; what came of each, and of the process, out.

A process that takes too long, or dies, is ended with all that it started; the next mini-batch gets a new one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.azureml.logs import Logs
from llmbatch.core.errors import EngineError, Stopped
from llmbatch.core.words import duration
from llmbatch.engines.guardian import Guardian
from llmbatch.systems.azure_ml.scoring import Script

_WORKER = Path(__file__).with_name("worker.py")
_LOOK_SECONDS = 0.1
_END_SECONDS = 30.0


class Ran(NamedTuple):
    """``run()`` returned; ``rows`` rows are in the file that was named."""

    rows: int


class Failed(NamedTuple):
    """An attempt failed: why, in a line, and at length."""

    error: str
    trace: str = ""


class ScriptFailed(EngineError):
    """``init()`` failed, so that there is no process to give mini-batches to."""


class Launch(NamedTuple):
    """How processes of a script are started. ``arguments`` are all that the script sees of its command line."""

    python: str
    script: Script
    arguments: Sequence[str]
    environment: Mapping[str, str]
    start_timeout: float
    timeout: float


class ScriptProcess:
    """One process at a time, for one thread. Setting ``stop`` ends what it is waiting for with ``Stopped``."""

    def __init__(self, number: int, launch: Launch, logs: Logs, guardian: Guardian, stop: threading.Event) -> None:
        self._number = number
        self._launch = launch
        self._logs = logs
        self._guardian = guardian
        self._stop = stop
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._answers = -1
        self._rest = b""

    def start(self) -> None:
        """Have a process whose ``init()`` is done. Raises ``ScriptFailed``."""
        if self._process is not None:
            return
        self._spawn()
        answer = self._answer(self._launch.start_timeout, "init()")
        if isinstance(answer, Failed):
            self.kill()
            self._logs.failed(self._number, f"process {self._number}, start", answer.error, answer.trace)
            raise ScriptFailed(f"{self._launch.script.path}: the script could not be started: {answer.error}")

    def run(self, files: Sequence[str], rows: Path | None) -> Ran | Failed:
        """Give it a mini-batch. After a failure that ended it there is no process until the next ``start``."""
        self._send({"files": list(files), "rows": None if rows is None else str(rows)})
        answer = self._answer(self._launch.timeout, "run()")
        return answer if isinstance(answer, Failed) else Ran(int(answer["count"]))

    def end(self) -> None:
        """Let it call ``shutdown()``, and end it; what goes wrong there is in the logs, and costs nothing."""
        if self._process is None:
            return
        self._send({"end": True})
        answer = self._answer(min(self._launch.timeout, _END_SECONDS), "shutdown()")
        if isinstance(answer, Failed):
            self._logs.failed(self._number, f"process {self._number}, shutdown", answer.error, answer.trace)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, whatever it does. May be called twice."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None
        os.close(self._requests)
        os.close(self._answers)

    def _spawn(self) -> None:
        request, self._requests = os.pipe()
        self._answers, answer = os.pipe()
        script = self._launch.script
        command = [
            self._launch.python, "-u", "-X", "faulthandler", str(_WORKER), str(request), str(answer), str(script.path),
            *self._launch.arguments,
        ]  # fmt: skip
        out, err = (self._logs.printed(self._number, stream) for stream in ("stdout", "stderr"))
        with out.open("ab") as stdout, err.open("ab") as stderr:
            try:
                self._process = subprocess.Popen(
                    command, cwd=script.code, env={**os.environ, **self._launch.environment}, stdin=subprocess.DEVNULL,
                    stdout=stdout, stderr=stderr, pass_fds=(request, answer), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                os.close(self._requests)
                os.close(self._answers)
                raise ScriptFailed(
                    f"{self._launch.python}: cannot be started: {error.strerror}; give another --python"
                ) from error
            finally:
                os.close(request)
                os.close(answer)
        self._rest = b""
        self._guardian.watch([self._process.pid])

    def _send(self, request: Mapping[str, Any]) -> None:
        left = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self._requests, left) :]
        except BrokenPipeError:  # it has died: the answer says so
            pass

    def _answer(self, seconds: float, called: str) -> dict[str, Any] | Failed:
        """The next answer; where none comes in time, or the process is gone, it is ended. Raises ``Stopped``."""
        assert self._process is not None  # noqa: S101 - for the type checker
        until = time.monotonic() + seconds
        while True:
            gone = self._process.poll() is not None  # looked at first: what it said before is still read
            if (line := self._line()) is not None:
                said = json.loads(line)
                return Failed(said["error"], said.get("trace", "")) if "error" in said else said
            if gone:
                code = self._process.returncode
                self.kill()
                return Failed(f"{called}: the process {_ended(code)}")
            if time.monotonic() > until:
                self.kill()
                return Failed(f"{called} took longer than {duration(seconds)}; its process was ended")
            if self._stop.is_set():
                self.kill()
                raise Stopped("stopped")

    def _line(self) -> bytes | None:
        """A whole line that it wrote, for which it is given a moment."""
        if b"\n" not in self._rest:
            ready = select.poll()
            ready.register(self._answers, select.POLLIN)
            if not ready.poll(1000 * _LOOK_SECONDS):
                return None
            data = os.read(self._answers, 1 << 16)
            if not data:
                time.sleep(_LOOK_SECONDS)  # it closed the pipe, and ends, or forgets to
                return None
            self._rest += data
        if b"\n" not in self._rest:
            return None
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
