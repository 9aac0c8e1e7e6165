"""What happens to mini-batches in; the log files that Azure ML has beside an output, out.

logs/job_progress_overview.txt              how many are done, and how the job ended
logs/user/error.txt                         a line for each attempt that failed
logs/user/error/local/process000.txt        the whole trace of each
logs/user/stdout/local/process000.stdout.txt, logs/user/stderr/local/...: what the script printed
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from llmbatch.core.files import writing
from llmbatch.core.words import one_line

_NODE = "local"


class Logs:
    """The log files of one output folder; several threads may write. What is written stays with what was there before."""

    def __init__(self, output: Path) -> None:
        self._folder = output / "logs"
        self._lock = threading.Lock()
        with writing(self._folder):
            for kind in ("error", "stdout", "stderr"):
                (self._folder / "user" / kind / _NODE).mkdir(parents=True, exist_ok=True)

    def printed(self, process: int, stream: str) -> Path:
        """Where what a process prints goes; ``stream`` is stdout or stderr."""
        return self._folder / "user" / stream / _NODE / f"process{process:03d}.{stream}.txt"

    def failed(self, process: int, what: str, error: str, trace: str) -> None:
        """An attempt failed; ``what`` says which. Raises ``WriteError``."""
        whole = self._folder / "user" / "error" / _NODE / f"process{process:03d}.txt"
        self._append(whole, f"{_now()} {what}\n{trace.rstrip() or error}\n\n")
        seen = whole.relative_to(self._folder.parent)
        self._append(self._folder / "user" / "error.txt", f"{_now()} {what}: {one_line(error)} ({seen})\n")

    def progress(self, line: str) -> None:
        """Raises ``WriteError``."""
        self._append(self._folder / "job_progress_overview.txt", f"{_now()} {line}\n")

    def _append(self, path: Path, text: str) -> None:
        with self._lock, writing(path), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
