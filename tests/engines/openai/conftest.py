"""A stand-in server for each test that wants one, and jobs on it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STAND_IN = Path(__file__).with_name("stand_in.py")


def load() -> ModuleType:
    name = "llmbatch_tests_stand_in"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STAND_IN)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(name="stand_in", scope="session")
def stand_in_fixture() -> ModuleType:
    """The module."""
    return load()


@pytest.fixture
def server() -> Iterator[Any]:
    started = load().StandIn().start()
    yield started
    started.stop()


@pytest.fixture
def servers() -> Iterator[Callable[..., Any]]:
    """Makes further ones, not started."""
    made: list[Any] = []

    def make(*arguments: Any, **named: Any) -> Any:
        made.append(load().StandIn(*arguments, **named))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def server_process() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts one in a process of its own: (the process, its URL)."""
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, str(STAND_IN), *arguments], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        made.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in made:
        process.kill()
        process.communicate()


@pytest.fixture
def online(jobs: Any, server: Any) -> Callable[..., dict[str, Any]]:
    """The data of a job over rows on the server."""

    def data(rows: Path, *, engine: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
        found: dict[str, Any] = jobs.data(rows, **sections)
        found["engine"] = {"name": "openai", "urls": [server.url], **(engine or {})}
        return found

    return data
