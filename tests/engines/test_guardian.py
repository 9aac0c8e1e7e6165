from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from llmbatch.engines.guardian import Guardian, start_time

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts processes that do nothing; ends them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-S", "-c", SLEEP]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def ends(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that ends within two minutes."""
    try:
        return process.wait(120)
    except subprocess.TimeoutExpired:
        return None


def gone(pid: int) -> bool:
    for _ in range(1200):
        if start_time(pid) is None:
            return True
        time.sleep(0.1)
    return False


def test_what_is_watched_over_is_killed_when_the_guardian_is_closed(
    sleeper: Callable[[], subprocess.Popen[bytes]],
) -> None:
    watched, other = sleeper(), sleeper()
    guardian = Guardian()
    guardian.watch([watched.pid])
    guardian.close()
    assert ends(watched) == -signal.SIGKILL
    assert other.poll() is None


def test_processes_may_be_added_one_after_another(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    processes = [sleeper() for _ in range(3)]
    guardian = Guardian()
    for i in range(3):
        guardian.watch([process.pid for process in processes[: i + 1]])
    guardian.close()
    assert [ends(process) for process in processes] == [-signal.SIGKILL] * 3


def test_nothing_is_killed_while_the_run_lives(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    watched = sleeper()
    guardian = Guardian()
    guardian.watch([watched.pid])
    time.sleep(1.2)  # more than two of its looks
    assert watched.poll() is None
    guardian.close()


def test_a_later_process_with_the_same_number_is_safe(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    later = sleeper()
    guardian = Guardian()
    assert guardian._process.stdin is not None
    guardian._process.stdin.write(b"%d %d\n" % (later.pid, (start_time(later.pid) or 0) - 1))
    guardian._process.stdin.flush()
    guardian.close()
    time.sleep(0.3)
    assert later.poll() is None


def test_close_may_be_called_twice_and_after_the_guardian_was_killed(
    sleeper: Callable[[], subprocess.Popen[bytes]],
) -> None:
    guardian, watched = Guardian(), sleeper()
    os.kill(guardian._process.pid, signal.SIGKILL)
    guardian._process.wait()
    guardian.watch([watched.pid])
    guardian.close()
    guardian.close()
    assert guardian._process.returncode == -signal.SIGKILL
    assert watched.poll() is None, "there is nobody to end it; the run goes on"


def test_a_process_that_is_gone_has_no_start_time() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    for _ in range(1200):  # a zombie by now
        if start_time(process.pid) is None:
            break
        time.sleep(0.1)
    assert start_time(process.pid) is None
    process.wait()
    assert start_time(process.pid) is None
    assert start_time(os.getpid()) is not None


# a run that starts an engine (spawned, or forked so that it holds the guardian's pipe open too) and is then killed
RUN = """
import multiprocessing, sys, time
from llmbatch.engines.guardian import Guardian

if __name__ == "__main__":
    guardian = Guardian()
    engine = multiprocessing.get_context(sys.argv[1]).Process(target=time.sleep, args=(600,))
    engine.start()
    guardian.watch([engine.pid])
    print(engine.pid, guardian._process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_killed_run_takes_its_engine_with_it(method: str, tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "run.py")  # noqa: PTH118
    with open(script, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(RUN)
    run = subprocess.Popen([sys.executable, script, method], stdout=subprocess.PIPE)
    assert run.stdout is not None
    engine, guardian = map(int, run.stdout.readline().split())
    assert start_time(engine) is not None
    run.kill()
    run.wait()
    assert gone(engine)
    assert gone(guardian)
