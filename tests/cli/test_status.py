from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def status_of(commands: Any) -> dict[str, Any]:
    result = commands("status", commands.folder, "--json")
    assert result.exit_code == 0
    status: dict[str, Any] = json.loads(result.stdout)
    return status


def wait_for(condition: Any) -> None:
    for _ in range(1800):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within three minutes")


def test_a_finished_run_is_shown_as_it_ended(commands: Any) -> None:
    commands(*commands.run)
    assert "finished: 2 of 5 rows are not ok" in commands("status", commands.folder).stdout
    status = status_of(commands)
    assert (status["state"], status["rows"], status["rows_total"]) == ("finished", 5, 5)
    assert status["by_status"] == {"failed": 1, "invalid": 1, "ok": 3}
    assert status["by_failure"] == {"choice": 1, "malformed_row": 1}


def test_a_run_that_goes_on_elsewhere_is_shown_with_its_process_and_counts(slow: Any) -> None:
    process = slow.start(*slow.run)
    wait_for(lambda: (slow.folder / "progress.json").exists() and status_of(slow)["snapshot"]["in_flight"])
    status = status_of(slow)
    assert status["state"] == "running"
    assert f"process {process.pid} on" in status["message"]
    assert status["snapshot"]["in_flight"] == 3
    assert "in flight" in slow("status", slow.folder).stdout


def test_a_run_that_was_killed_is_dead_and_what_it_did_is_counted(slow: Any) -> None:
    process = slow.start(*slow.run)
    wait_for(lambda: list((slow.folder / "parts").glob("*.journal")) and status_of(slow)["rows"] == 1)
    process.kill()
    process.wait()
    status = status_of(slow)
    assert status["state"] == "dead"
    assert status["by_failure"] == {"malformed_row": 1}
    text = slow("status", slow.folder).stdout
    assert f"process {process.pid}" in text
    assert "the same command goes on" in text


@pytest.mark.parametrize(("silence", "state"), [(5, "running"), (600, "dead")])
def test_a_run_on_another_host_lives_as_long_as_it_says_something(commands: Any, silence: int, state: str) -> None:
    commands(*commands.run)
    owner = {"host": "elsewhere", "pid": 1, "process_started": 0, "since": "yesterday", "token": "t"}
    (commands.folder / "lock").write_text(json.dumps(owner))
    progress = commands.folder / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_bytes()), "written_at": time.time() - silence}))
    status = status_of(commands)
    assert status["state"] == state
    assert "process 1 on elsewhere" in status["message"]


def test_the_report_can_be_had_as_a_page(commands: Any, tmp_path: Path) -> None:
    commands(*commands.run)
    page = tmp_path / "report.html"
    assert commands("status", commands.folder, "--html", page).exit_code == 0
    assert "finished: 2 of 5 rows are not ok" in page.read_text()
    assert page.read_text() == (commands.folder / "report.html").read_text()


def test_a_folder_without_a_run_is_refused(commands: Any, tmp_path: Path) -> None:
    result = commands("status", tmp_path)
    assert result.exit_code == 1
    assert "no run has begun here" in result.stderr


def under_way(slow: Any) -> Any:
    """The process of a run that has one row failed and others in flight."""
    process = slow.start(*slow.run)
    wait_for(lambda: (slow.folder / "progress.json").exists() and status_of(slow)["snapshot"]["in_flight"])
    wait_for(lambda: status_of(slow)["snapshot"]["worst"])
    return process


def test_a_run_is_watched_until_it_is_over(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process = under_way(slow)
    looks = 0

    def end(seconds: float) -> None:
        nonlocal looks
        looks += 1
        process.kill()
        process.wait()

    monkeypatch.setattr(
        importlib.import_module("llmbatch.cli.status"), "time", SimpleNamespace(sleep=end, time=time.time)
    )
    lines = [json.loads(line) for line in slow("status", slow.folder, "--watch", "--json").stdout.splitlines()]
    assert looks == 1
    assert [line.get("event") for line in lines] == ["snapshot", None]
    assert lines[0]["worst"]["kind"] == lines[1]["worst"]["kind"] == "malformed_row"
    assert lines[1]["state"] == "dead"


def test_ctrl_c_ends_the_view_and_not_the_run(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process = under_way(slow)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        importlib.import_module("llmbatch.cli.status"), "time", SimpleNamespace(sleep=interrupt, time=time.time)
    )
    result = slow("status", slow.folder, "--watch")
    assert result.exit_code == 0
    assert "stopped" not in result.output
    assert process.poll() is None


def test_on_a_terminal_the_view_is_drawn_anew_and_at_last_stands_the_summary(slow: Any) -> None:
    slow.run += ["--set", "engine.replicas=2"]
    process = under_way(slow)
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "llmbatch.cli", "status", str(slow.folder), "--watch"]
    there = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    viewer = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env={**there, "TERM": "xterm"})
    os.close(terminal)
    seen = b""
    while b"in flight" not in seen or b"replica 1" not in seen:
        seen += os.read(screen, 1 << 16)
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):  # Linux has no end of file here
        while more := os.read(screen, 1 << 16):
            seen += more
    os.close(screen)
    assert viewer.wait() == 0
    assert b"worst" in seen and b"malformed_row 1, as at" in seen
    assert re.search(rb"replica 0.*busy .*replica 1.*busy ", seen, re.DOTALL)
    assert b"the same command goes on" in seen[seen.rindex(b"in flight") :]


def test_of_a_run_that_is_over_the_watch_shows_the_end_at_once(commands: Any) -> None:
    commands(*commands.run)
    assert "finished: 2 of 5 rows are not ok" in commands("status", commands.folder, "--watch").stdout
