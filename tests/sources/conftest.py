from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file below the test's folder; its path."""

    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def source() -> Callable[..., Source]:
    """Open the source at a path."""

    def source(path: Path | str, **settings: Any) -> Source:
        return open_source(SourceSettings(path=str(path), **settings))

    return source
