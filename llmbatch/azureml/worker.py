"""One process of a scoring script: mini-batches in by a pipe, their rows into a file, and how many there are back by another pipe.

It needs nothing but Python's own library, so that it runs in whatever Python the script wants. What the script prints goes where
stdout and stderr lead, and never into the pipes.

    driver -- {"files": [...], "rows": PATH or null} --> worker -- {"count": N} or {"error": "...", "trace": "..."} --> driver

Before the first mini-batch it calls ``init()`` and says ``{"ready": true}``. ``{"end": true}`` has it call ``shutdown()`` and end.
A request pipe that ends means that the driver is gone: then it ends at once, with all that the script started.
"""

import importlib.util
import json
import os
import queue
import signal
import sys
import threading
import traceback


class _Pipes:
    """The two pipes. Only the process that was started answers: one that the script forked, and that comes back here, ends."""

    def __init__(self, requests, answers):  # type: ignore[no-untyped-def]
        for number in (requests, answers):
            os.set_inheritable(number, False)
        self._requests = os.fdopen(requests, "rb")
        self._answers = os.fdopen(answers, "wb", buffering=0)
        self._pid = os.getpid()
        self._queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self):  # type: ignore[no-untyped-def]
        return self._queue.get()

    def answer(self, **said):  # type: ignore[no-untyped-def]
        if os.getpid() != self._pid:
            os._exit(0)
        left = memoryview(json.dumps(said).encode() + b"\n")
        while left:
            left = left[self._answers.write(left) :]

    def _read(self):  # type: ignore[no-untyped-def]
        for line in self._requests:
            self._queue.put(json.loads(line))
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _load(path):  # type: ignore[no-untyped-def]
    """Import the script under its own name. Raises what it raises, and ``AttributeError`` where it lacks what is needed."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    for needed in ("init", "run"):
        if not callable(getattr(module, needed, None)):
            raise AttributeError("the script has no function %s()" % needed)
    return module


def _write(result, path):  # type: ignore[no-untyped-def]
    """Write what ``run`` returned, and count it; ``TypeError`` where that is nothing that has rows.

    A data frame is text with spaces between the columns, without names and index; of anything else each element is a line.
    """
    pandas = sys.modules.get("pandas")
    is_frame = pandas is not None and isinstance(result, pandas.DataFrame)
    if not is_frame and not isinstance(result, (list, tuple)):
        if not (hasattr(result, "tolist") and getattr(result, "ndim", 0) > 0):  # arrays of numpy, series of pandas
            raise TypeError("run() returned %s, where a list, a tuple or a DataFrame is needed" % type(result).__name__)
        result = list(result)
    if path is None:
        return len(result)
    with open(path, "w", encoding="utf-8", newline="") as file:
        if is_frame:
            if len(result.columns):
                result.to_csv(file, sep=" ", header=False, index=False, lineterminator="\n")
        else:
            for element in result:
                file.write("%s\n" % (element,))
    return len(result)


def _said(error):  # type: ignore[no-untyped-def]
    return {
        "error": "".join(traceback.format_exception_only(type(error), error)).strip()[:2000],
        "trace": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-20000:],
    }


def main(requests, answers, script):  # type: ignore[no-untyped-def]
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
            said = {"count": _write(module.run(request["files"]), request["rows"])}
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
    sys.path[0] = os.getcwd()
    main(int(given[0]), int(given[1]), given[2])
