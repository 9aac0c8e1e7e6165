from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def difference_of_lines() -> Callable[[Path, Path], str | None]:
    spec = importlib.util.spec_from_file_location("alike", EXAMPLES / "alike.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.difference_of_lines  # type: ignore[no-any-return]


@pytest.fixture
def llmbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
