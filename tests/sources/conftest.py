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


@pytest.fixture
def pdf() -> Callable[..., bytes]:
    """A PDF of these pages, each some lines of text, or none; an ``encrypted`` one needs a password that nobody knows."""

    def pdf(*pages: str, title: str = "", encrypted: bool = False) -> bytes:
        kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
        objects = [
            "<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
        for i, page in enumerate(pages):
            lines = " ".join(f"({line}) Tj 0 -14 Td" for line in page.splitlines())
            content = f"BT /F1 12 Tf 72 720 Td {lines} ET" if page else ""
            resources = "/MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
            objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {5 + 2 * i} 0 R >>")
            objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        trailer = f"/Size {len(objects) + 3} /Root 1 0 R /Info {len(objects) + 1} 0 R"
        objects.append(f"<< /Title ({title}) >>")
        if encrypted:
            objects.append(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >>")
            trailer += f" /Encrypt {len(objects)} 0 R /ID [<{'33' * 16}> <{'33' * 16}>]"
        made, offsets = b"%PDF-1.4\n", []
        for number, content in enumerate(objects, start=1):
            offsets.append(len(made))
            made += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
        table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
        end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< {trailer} >>\nstartxref\n{len(made)}\n%%EOF\n"
        return made + end.encode()

    return pdf
