"""A process that has imported what the command imports, or vLLM too: forks of it run what ``python`` would be told to.

``conftest.py`` starts it with a socket, whose messages each hold a command and come with the files that it is to have open: its
input and output, and those that are passed on to it. Workers of pytest-xdist are such forks too.
No engine was ever started in it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import multiprocessing.util
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for every message. Returns the message in the fork; in the server, which ends with its connection, never.

    The forks are orphans, which whoever asked for them takes in. They are told of twice, as what was asked for: by their number,
    and when they are.
    """
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, MOST_FILES)
        if not message:
            os._exit(0)
        asked: dict[str, Any] = json.loads(message)
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                connection.send(f"{asked['name']} {pid}".encode())
                os._exit(0)
            connection.close()
            _put(files, [0, 1, 2, *asked["passed"]])
            return asked
        os.waitpid(between, 0)
        for file in files:
            os.close(file)
        connection.send(f"{asked['name']} orphaned".encode())


def _put(files: list[int], numbers: list[int]) -> None:
    """Give open files other numbers, by way of some that are neither those that they have nor those that they get."""
    between = [fcntl.fcntl(file, fcntl.F_DUPFD, max(*numbers, *files) + 1) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(between, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def forked(server: socket.socket, asked: dict[str, Any], files: Sequence[int]) -> int:
    """What a server forks for this message: the number of a process that is now a child of this one."""
    asked["name"] = os.urandom(8).hex()
    asked["blocked"] = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    _adopt_orphans(True)
    try:
        socket.send_fds(server, [json.dumps(asked).encode()], files)
        pid = int(_told(server, asked["name"]))
        assert _told(server, asked["name"]) == "orphaned"  # from now on it is ours
    except BaseException:  # the next one asks another server: this one's answers would be taken for its own
        server.close()
        raise
    finally:
        _adopt_orphans(False)
    return pid


def _told(server: socket.socket, name: str) -> str:
    """What the server says of this; what it says to somebody who was killed before he heard it is of another name."""
    while answer := server.recv(100).decode():
        of, _, said = answer.partition(" ")
        if of == name:
            return said
    raise EOFError("the fork server has ended")


def _adopt_orphans(yes: bool) -> None:
    """Whether orphans among the processes below this one become its children."""
    ctypes.CDLL(None).prctl(36, int(yes), 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def spawned(server: Callable[[], socket.socket], python: Any, command: Sequence[Any], passed: Sequence[int]) -> int:
    """In the place of ``multiprocessing.util.spawnv_passfds``: the processes that vLLM spawns are forked too."""
    if "--multiprocessing-fork" not in command:  # Python's own tracker of resources
        return _spawn(python, command, passed)
    asked = {
        "command": [os.fsdecode(argument) for argument in command], "environment": dict(os.environ),
        "folder": str(Path.cwd()), "umask": -1, "session": False, "passed": list(passed),
    }  # fmt: skip
    return forked(server(), asked, [0, 1, 2, *passed])


_spawn = multiprocessing.util.spawnv_passfds


def become(asked: dict[str, Any]) -> None:
    """Be as a process that was started with this command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # the server's own remember where they were
        stream = os.fdopen(number, "w" if number else "r", 1 if number == 2 else -1, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(errors="backslashreplace")
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(" ".join(asked["command"]))
    os.environ.clear()
    os.environ.update(asked["environment"])
    faults.aim(os.environ.get("LLMBATCH_FAULT", ""))
    os.chdir(asked["folder"])
    if asked["umask"] >= 0:
        os.umask(asked["umask"])
    if asked["session"]:
        os.setsid()
    worker = asked["command"][1:3] == WORKER
    if "vllm" in sys.modules:
        global below
        below = _server_below()
        if not worker:
            server = below.connection
            multiprocessing.util.spawnv_passfds = functools.partial(spawned, lambda: server)
    match asked["command"][1:]:
        case [*_, code] if worker:
            sys.argv = ["-c"]
            sys.path[0] = ""
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(code, main.__dict__)  # noqa: S102
        case ["-P", "-m", module, *arguments]:
            del sys.path[0]
            _run_module(module, arguments)
        case ["-m", module, *arguments]:
            sys.path[0] = asked["folder"]
            _run_module(module, arguments)
        case [*_, "-c", code, argument]:  # as multiprocessing has it
            sys.argv = ["-c", argument]
            exec(code, {"__name__": "__main__"})  # noqa: S102
        case [script, *arguments]:
            sys.argv = [script, *arguments]
            sys.path[0] = str(Path(script).parent)
            runpy.run_path(script, run_name="__main__")


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]
    warnings.filterwarnings(
        "ignore", "'llmbatch", RuntimeWarning, "runpy"
    )  # that it is imported already, which is the point
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def leave(code: object) -> NoReturn:
    """End as Python does, but for taking all that was imported to pieces: of vLLM that takes some seconds."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1 if not (code is None or isinstance(code, int)) else (code or 0) & 0xFF)


class Below(NamedTuple):
    """A server that is a child of this process."""

    connection: socket.socket
    pid: int


below: Below | None = None
"""In a process with vLLM: a server that is as the process was before it ran anything."""


def _server_below() -> Below:
    """Another server, which is as this process is now, and ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stay_frozen()
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):  # else whoever reads what this process prints waits for the server too
            os.dup2(nothing, number)
        become(serve(theirs))
        sys.exit()
    theirs.close()
    return Below(ours, pid)


def _stay_frozen() -> None:
    """vLLM, at the end of an engine, may not have all that is imported here looked at again."""
    gc.unfreeze = lambda: None


WORKER = ["-u", "-c"]
"""How pytest-xdist starts its workers."""
MOST_FILES = 64
COMMAND = (
    "duckdb", "llmbatch.cli.run", "llmbatch.runs.session", "llmbatch.evals.evaluate", "pandas", "pyarrow.parquet", "rich.console",
    "rich.table", "rich._emoji_codes", "huggingface_hub.constants", "llmbatch.engines.kserve.kind",
    "llmbatch.engines.transformers.kind", "llmbatch.engines.vllm.kind", "llmbatch.integrations.tracking", "llmbatch.model.vision",
)  # fmt: skip
ROOMS = (
    "accept", "check", "core", "engines.http", "engines.openai", "engines.scripted", "folder", "formats", "measure", "plan",
    "programs", "prompt", "report", "reuse", "runs", "sinks", "sources", "systems", "watch",
)  # fmt: skip
VLLM = ("vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker")
TESTS = (
    "datasets", "hypothesis.strategies", "llmbatch.server.running", "llmbatch.server.serve", "openai", "requests",
    "schemathesis.pytest.plugin", "scipy.stats",
)  # fmt: skip
"""Nothing that brings Flask, as moto does: vLLM, as an engine starts, looks at all that is in any module, which Flask forbids."""
MODULES = {
    "llmbatch": COMMAND,
    "plan": (*COMMAND, "llmbatch.cli.plan", "transformers.models.auto.tokenization_auto"),
    "vllm": (*COMMAND, *VLLM),
    "worker": (*COMMAND, *VLLM, *TESTS),
}


def import_modules(names: Iterable[str]) -> None:
    """What can be imported of modules, and of rooms of llmbatch, most of whose files a command imports once it is asked."""
    for name in names:
        with contextlib.suppress(ImportError):  # vLLM may not be here, nor what an extra brings
            importlib.import_module(name)
    for room in ROOMS:
        package = importlib.import_module(f"llmbatch.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def compile_pages() -> None:
    """What takes half of the time of a small run, and only the first in a process has to do: its page's templates are read."""
    frame = importlib.import_module("llmbatch.report.page.frame")
    for template in Path(frame.__file__).parent.glob("*.html"):
        frame._environment().get_template(template.name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    if sys.argv[2] == "plan":
        sys.modules["torch"] = None  # type: ignore[assignment]  # as planning does it itself
    import_modules(MODULES[sys.argv[2]])
    compile_pages()
    from llmbatch.core import faults

    gc.enable()
    # From its start to its end an engine looks nine times through all that there is, which takes as long as the rest of its start.
    gc.freeze()
    if sys.argv[2] == "worker":  # for which this is the module that tests import
        sys.modules["fork_server"] = sys.modules["__main__"]
    else:
        _stay_frozen()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = serve(connection)
    try:
        become(asked)
    except SystemExit as end:
        leave(end.code)
    else:
        leave(None)
