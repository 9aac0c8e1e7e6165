from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

OPEN = "import os, sys; from llmbatch.core.screen import open_streams, shown; open_streams()\n"


def python(code: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Python's exit code and output under a shell's redirections."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, OPEN + code]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_never_gets_the_number_of_a_stream_that_was_closed(closed: str) -> None:
    code = "number = os.open('/dev/null', os.O_RDONLY); print('said'); sys.exit(0 if number > 2 and not sys.stdin.read() else 1)"
    assert python(code, closed).returncode == 0


def test_letters_that_a_screen_does_not_have_are_written_as_json_reads_them() -> None:
    text = "caf\u00e9 \u2026 \U0001f600"
    done = python(f"import json; print(json.dumps({text!r}, ensure_ascii=False))", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert json.loads(done.stdout) == text


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_cannot_be_written_is_dropped_and_ends_nothing(stream: str) -> None:
    code = f"with shown(sys.{stream}):\n    print('x' * 100_000, file=sys.{stream})\nprint('more', file=sys.{stream})"
    assert python(code, "> /dev/full 2> /dev/full").returncode == 0


def test_a_pipe_whose_reader_is_gone_ends_nothing() -> None:
    code = "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\nwith shown(sys.stdout):\n    print('x' * 100_000)\n"
    done = python(code + "print('more')")
    assert (done.returncode, done.stderr) == (0, b"")
