"""How the process of a command ends, once an engine's libraries were imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys, threading, time, types
from pathlib import Path
from llmbatch.cli.main import main

folder, torch = Path(sys.argv.pop(1)), sys.argv.pop(1)
if torch == "imported":
    sys.modules["torch"] = types.ModuleType("torch")
atexit.register(lambda: (folder / "asked").touch())
threading.Thread(target=lambda: (time.sleep(0.05), (folder / "thread").touch())).start()

class Kept:
    def __del__(self, touch=(folder / "taken_apart").touch):
        touch()

kept = Kept()
main()
"""


@pytest.mark.parametrize("torch", ["imported", "not"])
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["run", "--no-such-option"], 2)])
def test_a_process_with_an_engines_libraries_is_not_taken_apart_and_its_code_and_output_are_the_same(
    torch: str, arguments: list[str], code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), torch, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("version" if code == 0 else "no-such-option") in done.stdout + done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"asked", "thread", *(["taken_apart"] if torch == "not" else [])}
