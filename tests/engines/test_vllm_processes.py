"""Which processes are an engine's own, on processes that only wait."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from llmbatch.engines.vllm import processes as engine_processes
from llmbatch.engines.vllm.processes import Processes

# on a line of input it starts one of its own
PARENT = ["sh", "-c", "read line; sleep 600 & echo $!; wait"]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        process.kill()
        process.communicate()


def test_what_the_program_starts_while_the_engine_runs_does_not_end_with_it(
    started: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_processes, "_GRACE_SECONDS", 0.1)
    processes = Processes()

    def start() -> subprocess.Popen[str]:
        started.append(subprocess.Popen(PARENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    earlier = start()
    with processes.starting():
        core = start()
    program = start()
    processes.notice()
    assert processes.pids == (core.pid,)
    below = [psutil.Process(child_of(parent)) for parent in (core, program)]
    processes.notice()
    assert processes.pids == tuple(sorted((core.pid, below[0].pid)))
    processes.end()
    while below[0].is_running() and below[0].status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert processes.pids == ()
    assert core.wait() is not None
    assert (earlier.poll(), program.poll()) == (None, None)
    assert below[1].is_running()
    below[1].kill()


def child_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("\n")
    parent.stdin.flush()
    return int(parent.stdout.readline())
