from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PASSES = """
from llmbatch.core.faults import point, torn
for _ in range(3):
    print(torn("a", b"0123").decode(), flush=True)
    point("a", "file-1")
    point("b", "file-2")
"""


def run(fault: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PASSES], env={**os.environ, "LLMBATCH_FAULT": fault}, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode().split()


@pytest.mark.parametrize(
    ("fault", "passed"),
    [
        ("a", ["01"]),
        ("a:1", ["01"]),
        ("a:3", ["0123", "0123", "01"]),
        ("b:2", ["0123", "0123"]),
        ("b/file-2", ["0123"]),
    ],
)
def test_the_process_is_killed_at_the_point_and_time_that_the_environment_names(fault: str, passed: list[str]) -> None:
    assert run(fault) == (-signal.SIGKILL, passed)


@pytest.mark.parametrize("fault", ["", "c", "a:4", "b/file-1"])
def test_other_points_do_nothing(fault: str) -> None:
    assert run(fault) == (0, ["0123"] * 3)
