"""``llmbatch serve`` as a process: it says where it is, ends when it is told to, and refuses what cannot be served."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60


class Serving:
    """The command, as often as it is started; its processes end with the test."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch.cli", "serve", "--data", str(self.data), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def refused(self, *arguments: str) -> str:
        """What it says that does not start."""
        process = self.start(*arguments)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 2, said
        return said


@pytest.fixture
def serving(tmp_path: Path, forked: None) -> Iterator[Serving]:
    made = Serving(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


DEMO = ("--model", "demo", "--engine", "scripted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_when_it_is_told_to(serving: Serving, number: signal.Signals) -> None:
    process = serving.start(*DEMO, "--port", "0")
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "llmbatch serves demo at http://127.0.0.1:" in said
    assert "no API keys" in process.stdout.readline()
    port = int(said.split("127.0.0.1:")[1].split("/")[0])
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
    assert (serving.data / "lock").exists()
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert not (serving.data / "lock").exists()


def test_what_cannot_be_served_is_refused_before_it_listens(serving: Serving, tmp_path: Path) -> None:
    assert "--api-key-file" in serving.refused(*DEMO, "--host", "0.0.0.0")  # noqa: S104
    assert "model is missing" in serving.refused("--engine", "scripted")
    assert "comes with each batch" in serving.refused(*DEMO, "--set", "input.path=x")
    assert "cannot be read" in serving.refused(*DEMO, "--api-key-file", str(tmp_path / "none"))
    assert "10G" in serving.refused(*DEMO, "--max-bytes", "lots")
    assert "cannot listen" in serving.refused(*DEMO, "--host", "203.0.113.1", "--api-key-file", str(keys(tmp_path)))
    assert not serving.data.exists()


def keys(folder: Path) -> Path:
    place = folder / "keys"
    place.write_text("alice alice-has-a-long-key\n")
    return place
