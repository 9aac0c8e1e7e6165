"""Documents: whatever the bytes of a text, a web page or a PDF, it is one row, which can be written back as strict JSON."""

from __future__ import annotations

import json

import atheris
from harness import fuzz, scratch

with atheris.instrument_imports(include=["llmbatch.sources", "trafilatura", "justext"]):
    from llmbatch.sources.base import SourceSettings
    from llmbatch.sources.opening import open_source

FOLDER = scratch()
SUFFIXES = (".txt", ".md", ".html", ".pdf", ".txt.gz")


def target(data: bytes) -> None:
    """The first byte says what the rest is taken for."""
    path = FOLDER / f"document{SUFFIXES[data[0] % len(SUFFIXES)] if data else '.txt'}"
    path.write_bytes(data[1:])
    (row,) = open_source(SourceSettings(path=str(path), format="documents")).rows()
    assert (row.failure is None) or not row.data
    assert row.id == path.name
    json.dumps(dict(row.data), ensure_ascii=False, allow_nan=False).encode("utf-8", "strict")
    if row.failure is None:
        assert row.data["text"].strip()
    else:
        assert row.failure.message.startswith(str(path))
        assert len(row.failure.message) < 1000


PAGE = b"""<!doctype html><html><head><meta charset="utf-8"><title>T</title></head><body><h1>A</h1><p>text &amp; more</p><ul><li>one
<li>two</ul><table><tr><td>1</td></tr></table><pre>code</pre></body></html>"""
PDF = b"""%PDF-1.4
1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj
2 0 obj << /Type /Pages /Kids [3 0 R] /Count 1 >> endobj
3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Resources << /Font << /F 4 0 R >> >> /Contents 5 0 R >> endobj
4 0 obj << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> endobj
5 0 obj << /Length 28 >>
stream
BT /F 12 Tf (Some text) Tj ET
endstream
endobj
trailer << /Root 1 0 R >>
"""

if __name__ == "__main__":
    seeds = [
        b"\0text",
        b"\0\xef\xbb\xbftext",
        b"\1---\na: b\n---\n# Title\n",
        b"\2" + PAGE,
        b"\3" + PDF,
        b"\4\x1f\x8b\x08",
        b"",
    ]
    words = [
        "\ufeff",
        "\0",
        "<meta charset=utf-16>",
        "<meta charset=base64>",
        "&#xD800;",
        "<!--",
        "<![CDATA[",
        "<svg>",
        "endobj",
    ]
    fuzz(target, seeds, words, FOLDER)
