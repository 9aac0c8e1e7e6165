"""A small corpus and the command line that runs it with the scripted engine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main

SCRIPT = """
rules:
  - when: {contains: second, attempt: 1}
    answer: wrong
  - when: {contains: never}
    answer: wrong
  - answer: blue
"""


@dataclass(slots=True)
class Commands:
    """The command, called on a small run. ``folder`` is the run's, ``run`` the arguments that make it."""

    folder: Path
    run: list[str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in a process of its own, which is ended with the test."""
        command = [sys.executable, "-m", "llmbatch.cli", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process


@pytest.fixture
def commands(tmp_path: Path, forked: None) -> Iterator[Commands]:
    """Five rows: ok at once, a duplicate of it, ok at the second attempt, never ok, and one that is not JSON."""
    texts = {"a": "first", "b": "first", "c": "second", 7: "never"}
    lines = [*(json.dumps({"id": row_id, "text": text}) for row_id, text in texts.items()), "{not json"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "script.yaml").write_text(SCRIPT)
    folder = tmp_path / "out"
    commands = Commands(
        folder,
        [
            "run", "--model", "any", "--engine", "scripted", "--prompt", "Say: {{ text }}",
            "--input", str(tmp_path / "rows.jsonl"), "--output", str(folder), "--choice", "blue,green",
            "--max-attempts", "2", "--temperature", "0", "--set", "retry.feedback=false",
            "--set", f"engine.script={tmp_path / 'script.yaml'}",
        ],
    )  # fmt: skip
    yield commands
    for process in commands.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def slow(commands: Commands) -> Commands:
    """The same run with an engine that takes longer for each answer than any test."""
    commands.run += ["--set", "engine.args.latency=600"]
    return commands


@pytest.fixture
def terminal(forked: None) -> Callable[..., tuple[int, str]]:
    """Runs a command line on a terminal of so many lines and columns, to its end: (exit code, what the terminal was sent)."""

    def run(arguments: list[str], lines: int = 50, columns: int = 120, **environment: str) -> tuple[int, str]:
        screen, device = pty.openpty()
        fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch.cli", *arguments],
            stdin=device, stdout=device, stderr=device, env={**known, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(device)
        seen = b""
        with contextlib.suppress(OSError):  # the end, on Linux
            while more := os.read(screen, 1 << 16):
                seen += more
        os.close(screen)
        return process.wait(), seen.decode().replace("\r\n", "\n")

    return run
