from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmbatch.evals.base import Example, make_metric
from llmbatch.evals.sandbox import Allowance, can_isolate, run_python

ROOMY = Allowance(seconds=60, memory_mb=1024)


@pytest.fixture(params=[True, False], ids=["apart", "plain"], autouse=True)
def _isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test once as the system allows, and the same where it lets nobody make namespaces."""
    if not request.param:
        if request.node.get_closest_marker("skipif"):
            pytest.skip("of programs that are run apart")
        monkeypatch.setattr("llmbatch.evals.sandbox.can_isolate", lambda: False)


def test_a_program_that_ends_well_passes() -> None:
    assert run_python("assert 1 + 1 == 2\nprint('done')", ROOMY).passed


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("assert 1 + 1 == 3", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(0)", ""),
        ("import os; os._exit(0)", ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ""),
        ("x = [0] * (4 << 30)", "MemoryError"),
        ("open('big', 'wb').write(b'x' * (64 << 20))", ""),
        ("input()", "EOFError"),
    ],
    ids=["assert", "syntax", "exit", "hard-exit", "killed", "memory", "file", "input"],
)
def test_a_program_that_does_not_reach_its_end_does_not_pass(program: str, said: str) -> None:
    verdict = run_python(program, ROOMY)
    assert not verdict.passed
    assert said in verdict.said


def test_a_program_that_never_ends_is_ended_by_its_processor_time() -> None:
    assert not run_python("while True: pass", Allowance(seconds=1)).passed


def test_a_program_sees_neither_the_users_environment_nor_his_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    program = (
        "import os\nassert 'SECRET_TOKEN' not in os.environ\nassert os.listdir() == []\nopen('new.txt', 'w').close()"
    )
    assert run_python(program, ROOMY).passed
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_program_prints_as_much_as_it_likes_and_its_end_is_kept() -> None:
    verdict = run_python("for i in range(100000): print(i)\nraise ValueError('the last word')", ROOMY)
    assert verdict.said.endswith("ValueError: the last word")
    assert len(verdict.said) <= 2000


apart = pytest.mark.skipif(not can_isolate(), reason="the system does not let this user make namespaces")


@apart
def test_a_program_can_write_nowhere_but_in_its_folder_and_cannot_undo_that(tmp_path: Path) -> None:
    target = tmp_path / "mine.txt"
    program = f"""
import ctypes, struct
open("own", "w").close()
libc = ctypes.CDLL(None)
libc.syscall(442, -100, b"/", 0x8000, struct.pack("=QQQQ", 0, 1, 0, 0), 32)
libc.unshare(0x10020000)
libc.syscall(442, -100, b"/", 0x8000, struct.pack("=QQQQ", 0, 1, 0, 0), 32)
try:
    open({str(target)!r}, "w").close()
except OSError:
    pass
"""
    assert run_python(program, ROOMY).passed
    assert not target.exists()


@apart
def test_a_program_can_reach_no_process_but_its_own() -> None:
    program = (
        f"import os\nassert os.getpid() < 10\ntry:\n    os.kill({os.getpid()}, 0)\nexcept OSError:\n    pass\n"
        "else:\n    raise ValueError('reached')"
    )
    assert run_python(program, ROOMY).passed


@apart
def test_a_program_has_no_network_where_the_system_allows_that() -> None:
    program = (
        "import socket\nserver = socket.socket()\nserver.bind(('127.0.0.1', 0))\nserver.listen()\n"
        "try:\n    socket.create_connection(server.getsockname(), 1)\nexcept OSError:\n    pass\n"
        "else:\n    raise SystemExit('connected')"
    )
    assert run_python(program, ROOMY).passed


@apart
def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    program = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    for i in range(600):\n        time.sleep(0.1)\n"
        f"    open({str(trace)!r}, 'w').close()\n"
    )
    assert run_python(program, ROOMY).passed
    held = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if str(trace).encode() in _read(entry)]
    assert held == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_pass_at_k_runs_each_sample_against_the_rows_tests() -> None:
    metric = make_metric({"kind": "pass_at_k", "k": 1, "seconds": 60})
    answers = ["def f(x): return x + 1", "def f(x): return x", None, "def f(x): return 1 + x"]
    example = Example(0, {}, references=[["assert f(1) == 2", "assert f(2) == 3"]], answers=answers)
    assert metric.of(example) == 0.5
    program = "{{ row.prompt }}{{ answer }}\n{{ row.test }}\ncheck({{ row.entry_point }})\n"
    row = {"prompt": "def g():\n", "test": "def check(f):\n    assert f() == 7\n", "entry_point": "g"}
    own = make_metric({"kind": "pass_at_k", "k": 2, "seconds": 60, "program": program})
    assert own.of(Example(0, row, answers=["    return 7", "    return 8"])) == 1.0


def test_a_failed_row_passes_nothing() -> None:
    assert make_metric("pass_at_k").of(Example(0, {}, references=["x"], error="engine")) == 0
