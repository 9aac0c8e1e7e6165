"""That a process which is forked is as one that was started, as far as tests rely on it."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

import fork_server
import psutil
import pytest

SCRIPT = "import huggingface_hub.constants, os\nprint(huggingface_hub.constants.HF_HOME, os.environ.get('HF_HOME'))\n"


@pytest.mark.forked_from("plan")  # which has imported the hub's library
@pytest.mark.parametrize("told", ["by the test's environment", "by the command's"])
def test_what_was_imported_under_another_environment_is_imported_anew(
    told: str, forked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    subprocess.run(
        [sys.executable, str(script)], capture_output=True, check=True
    )  # what others are forked from is there
    home = str(tmp_path / "home")
    environment: Mapping[str, str] | None = None
    if told == "by the command's":
        environment = {**os.environ, "HF_HOME": home}
    else:
        monkeypatch.setenv("HF_HOME", home)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [home, home]


def test_a_failure_in_a_process_that_is_forked_is_seen(forked: None, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('it broke')\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it broke" in done.stderr


def test_a_fork_server_that_ended_is_followed_by_another(forked: None, fork_servers: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('here')\n")
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        assert done.stdout == "here\n"
        _, server = fork_servers._started["llmbatch"]
        server.kill()
        server.wait()


def test_what_a_fork_server_answers_to_a_test_that_was_interrupted_is_not_taken_by_the_next(
    forked: None, fork_servers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os\nprint(os.getpid())\n")
    environment = fork_servers.environment  # an engine of an earlier test may have left this process another
    send = socket.send_fds

    def interrupted(*arguments: Any) -> None:
        send(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(socket, "send_fds", interrupted)
        with pytest.raises(KeyboardInterrupt):
            subprocess.run([sys.executable, str(script)], env=environment, stdout=subprocess.DEVNULL, check=True)
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0] == f"{process.pid}\n"


def test_what_multiprocessing_spawns_is_forked_with_the_files_that_it_is_given(
    fork_servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = functools.partial(fork_server.spawned, lambda: fork_servers.of("llmbatch"))
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawned)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        # it waits for a challenge and answers it: so it is there, and has a command, until it is asked
        process = spawn.Process(target=answer_challenge, args=(theirs, b"key"))
        process.start()
        commands = " ".join(psutil.Process(process.pid).cmdline())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    deliver_challenge(ours, b"key")
    with pytest.raises(EOFError):
        ours.recv()
    process.join()
    assert process.exitcode == 0
    assert "fork_server.py" in commands or "spawn_main" in commands


def test_a_worker_of_xdist_is_forked_and_runs_what_it_is_told_as_main(fork_servers: Any) -> None:
    started = fork_servers.popen("llmbatch", [fork_server.WORKER])
    code = "import sys; exec(sys.stdin.readline())"
    told = "print(__name__, sys.modules['__main__'].__dict__ is globals(), sys.argv, 'llmbatch.runs.session' in sys.modules)\n"
    process = started([sys.executable, *fork_server.WORKER, code], stdin=-1, stdout=-1, text=True)
    assert process.communicate(told)[0] == "__main__ True ['-c'] True\n"
    assert process.returncode == 0
