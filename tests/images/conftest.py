"""Small images as bytes, and files of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow


def encoded(
    color: Any = "red", size: tuple[int, int] = (8, 6), *, mode: str = "RGB", kind: str = "PNG", **how: Any
) -> bytes:
    """An image of one colour, as a file of that kind has it."""
    written = io.BytesIO()
    Pillow.new(mode, size, color).save(written, kind, **how)
    return written.getvalue()


@pytest.fixture(name="encoded", scope="session")
def encoded_fixture() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(encoded())
    return path
