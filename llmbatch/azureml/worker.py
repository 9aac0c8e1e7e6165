"""One process of a scoring script: mini-batches in by a pipe, their rows into a file, and how many there are back by another pipe.

It needs nothing but Python's own library, so that it runs in whatever Python the script wants. What the script prints goes where
stdout and stderr lead, and never into the pipes.

    driver -- {"files": [...], "rows": PATH or null} --> worker -- {"count": N} or {"error": "...", "trace": "..."} --> driver

Before the first mini-batch it calls ``init()`` and says ``{"ready": true}``. ``{"end": true}`` has it call ``shutdown()`` and end.
A request pipe that ends means that the driver is gone: then it ends at once, with all that the script started.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


class _Pipes:
    """The two pipes. Only the process that was started answers: one that the script forked, and that comes back here, ends."""

    def __init__(self, requests: int, answers: int) -> None:
        for number in (requests, answers):
            os.set_inheritable(number, False)
        self._requests = os.fdopen(requests, "rb")
        self._answers = os.fdopen(answers, "wb", buffering=0)
        self._pid = os.getpid()
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        return self._queue.get()

    def end_forks(self) -> None:
        """A process that the script forked, and that has come back from it, is to write nothing, and ends here."""
        if os.getpid() != self._pid:
            os._exit(0)

    def answer(self, **said: Any) -> None:
        self.end_forks()
        left = memoryview(json.dumps(said).encode() + b"\n")
        while left:
            left = left[self._answers.write(left) :]

    def _read(self) -> None:
        for line in self._requests:
            self._queue.put(json.loads(line))
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _load(path: str) -> Any:
    """Import the script under its own name. Raises what it raises, and ``ImportError`` where it lacks what is needed."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if missing := [name for name in ("init", "run") if not callable(getattr(module, name, None))]:
        raise ImportError(f"the script has no function {missing[0]}()")
    return module


def _write(result: Any, path: str | None) -> int:
    """Write what ``run`` returned, and count it; ``TypeError`` where that is nothing that has rows.

    A data frame is text with spaces between the columns, without names and index; of anything else each element is a line.
    """
    pandas = sys.modules.get("pandas")
    is_frame = pandas is not None and isinstance(result, pandas.DataFrame)
    if not is_frame and not isinstance(result, (list, tuple)):
        if not (hasattr(result, "tolist") and getattr(result, "ndim", 0) > 0):  # arrays of numpy, series of pandas
            raise TypeError(f"run() returned {type(result).__name__}, where a list, a tuple or a DataFrame is needed")
        result = list(result)
    if path is None:
        return len(result)
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        if is_frame:
            if len(result.columns):
                result.to_csv(file, sep=" ", header=False, index=False, lineterminator="\n")
        else:
            for element in result:
                file.write(f"{element}\n")
    return len(result)


def _said(error: BaseException) -> dict[str, str]:
    return {
        "error": "".join(traceback.format_exception_only(type(error), error)).strip()[:2000],
        "trace": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-20000:],
    }


def main(requests: int, answers: int, script: str) -> None:
    pipes = _Pipes(requests, answers)
    try:
        module = _load(script)
        module.init()
    except BaseException as error:  # SystemExit too: whatever it is, the driver is to know it
        pipes.answer(**_said(error))
        return
    pipes.answer(ready=True)
    while True:
        request = pipes.next()
        if request.get("end"):
            break
        try:
            result = module.run(request["files"])
            pipes.end_forks()
            said: dict[str, Any] = {"count": _write(result, request["rows"])}
        except BaseException as error:
            said = _said(error)
        sys.stdout.flush()
        pipes.answer(**said)
    try:
        if callable(getattr(module, "shutdown", None)):
            module.shutdown()
    except BaseException as error:
        pipes.answer(**_said(error))
        return
    pipes.answer(ended=True)


if __name__ == "__main__":
    given = sys.argv[1:4]
    sys.argv = sys.argv[3:]  # the script sees itself, and its own arguments
    sys.path[0] = str(Path.cwd())
    main(int(given[0]), int(given[1]), given[2])
