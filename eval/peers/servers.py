"""A peer's name in; its real server on this machine, in a process of its own that can be killed and started again, out.

Environments are those of ``make peers``. Whatever is started here listens on the loopback address alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_START_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


class Missing(Exception):
    """The peer's environment is not there; the message says how to make it."""


class Command(NamedTuple):
    """How a server is started."""

    arguments: list[str]
    folder: Path
    environment: Mapping[str, str]


def python_of(peer: str) -> Path:
    """The Python of a peer's environment."""
    found = ROOT / f".venv-{peer}" / "bin" / "python"
    if not found.exists():
        raise Missing(f"{found.parent.parent.name} is not there: make peers")
    return found


def _told(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _triton(python: Path, work: Path, port: int) -> Command:
    """The server that nvidia-pytriton carries, by itself: pytriton's own bindings did not start under Python 3.11.7."""
    told = _told(
        python,
        "import importlib.util, sys, sysconfig; "
        "print(importlib.util.find_spec('pytriton').submodule_search_locations[0], "
        "'%d.%d' % sys.version_info[:2], sysconfig.get_config_var('LIBDIR'), sep='\\n')",
    )
    place, version, libraries = told.splitlines()
    package = Path(place) / "tritonserver"
    backends, models = work / "backends", work / "models"
    if not backends.exists():
        shutil.copytree(package / "backends" / "python", backends / "python")
        shutil.copy(package / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        shutil.copytree(HERE / "triton", models)  # links become files
    site = Path(place).parent
    arguments = [
        str(package / "bin" / "tritonserver"),
        "--model-repository", str(models), "--backend-directory", str(backends),
        "--http-address", "127.0.0.1", "--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false",
        "--backend-config", f"python,shm-region-prefix-name={_shared_memory(port)}",
    ]  # fmt: skip
    path = f"{python.parent}:{os.environ.get('PATH', '')}"
    found = f"{site / 'nvidia_pytriton.libs'}:{libraries}"
    return Command(arguments, work, {"LD_LIBRARY_PATH": found, "PYTHONPATH": str(site), "PATH": path})


def _shared_memory(port: int) -> str:
    """What Triton's Python backend calls its shared memory, which outlives a kill."""
    return f"llmbatch-triton-{port}-"


def _mlserver(python: Path, work: Path, port: int) -> Command:
    if not (work / "runtime.py").exists():
        shutil.copytree(HERE / "mlserver", work, dirs_exist_ok=True)
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None}
        (work / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    path = f"{python.parent}:{os.environ.get('PATH', '')}"
    return Command([str(python.parent / "mlserver"), "start", "."], work, {"PATH": path, "PYTHONPATH": ""})


_COMMANDS: Mapping[str, Callable[[Path, Path, int], Command]] = {"triton": _triton, "mlserver": _mlserver}


class Server:
    """One server of a peer; a context manager that ends it. ``work`` is a folder of its own, which gets its log."""

    def __init__(self, peer: str, work: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = work / f"{peer}.log"
        work.mkdir(parents=True, exist_ok=True)
        self._command = _COMMANDS[peer](python_of(peer), work, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        """Start it, on the same port as before."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command.arguments, cwd=self._command.folder, env={**os.environ, **self._command.environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Block until it says that it is ready. Raises ``RuntimeError`` with the end of its log where it does not come up."""
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=1) as reply:  # noqa: S310
                    if reply.status == 200:
                        return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(_PAUSE_SECONDS)
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.log.name}: the server did not come up:\n{tail}")

    def kill(self) -> None:
        """Kill -9 it, with the processes that it started; returns when it is gone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None
        for left in Path("/dev/shm").glob(f"{_shared_memory(self.port)}*"):  # noqa: S108 - where Linux has it
            left.unlink(missing_ok=True)

    def version(self) -> str:
        """What it says it is."""
        with urllib.request.urlopen(f"{self.url}/v2", timeout=5) as reply:  # noqa: S310
            told = json.load(reply)
        return f"{told['name']} {told['version']}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
