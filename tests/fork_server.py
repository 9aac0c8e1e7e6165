"""A process that has imported what the command imports, or vLLM too: forks of it run what ``python`` would be told to.

``conftest.py`` starts it with a socket, whose messages each hold a command and come with three files for its input and output.
No engine was ever started in it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for every message. Returns the message in the fork; in the server, which ends with its connection, never.

    The forks are orphans, which whoever asked for them takes in. They are told of twice: by their number, and when they are.
    """
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            sys.exit()
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                connection.send(str(pid).encode())
                os._exit(0)
            connection.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            asked: dict[str, Any] = json.loads(message)
            return asked
        os.waitpid(between, 0)
        for file in files:
            os.close(file)
        connection.send(b"orphaned")


def become(asked: dict[str, Any]) -> None:
    """Be as a process that was started with this command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # the server's own remember where they were
        stream = os.fdopen(number, "w" if number else "r", 1 if number == 2 else -1, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(errors="backslashreplace")
    os.environ.clear()
    os.environ.update(asked["environment"])
    faults.aim(os.environ.get("LLMBATCH_FAULT", ""))
    os.chdir(asked["folder"])
    if asked["umask"] >= 0:
        os.umask(asked["umask"])
    if asked["session"]:
        os.setsid()
    _, *sys.argv = (each for each in asked["command"] if each != "-P")
    module = sys.argv[1] if sys.argv[0] == "-m" else None
    if module is None:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.path[0] = asked["folder"]
        del sys.argv[0]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


COMMAND = ("llmbatch.cli.run", "llmbatch.runs.session", "llmbatch.evals.evaluate", "rich.console", "rich.table")
MODULES = {
    "llmbatch": COMMAND,
    "plan": (*COMMAND, "llmbatch.cli.plan", "transformers.models.auto.tokenization_auto"),
    "vllm": (*COMMAND, "vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker"),
}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    if sys.argv[2] == "plan":
        sys.modules["torch"] = None  # type: ignore[assignment]  # as planning does it itself
    for module in MODULES[sys.argv[2]]:
        importlib.import_module(module)
    from llmbatch.core import faults

    gc.enable()
    # From its start to its end an engine looks nine times through all that there is, which takes as long as the rest of its start.
    gc.freeze()
    atexit.register(gc.unfreeze)  # else extension modules complain at the end of what is left
    gc.unfreeze = lambda: None  # by vLLM, at the end of an engine
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = serve(connection)
    become(asked)
