"""JSON lines: whatever the bytes, each line that is not blank is one row, and each row can be written back as strict JSON."""

from __future__ import annotations

import json

import atheris
from harness import fuzz, scratch
from mutate import mutated_lines

with atheris.instrument_imports(include=["llmbatch.sources", "jsonlines"]):
    from llmbatch.core.errors import SourceError
    from llmbatch.core.types import Row
    from llmbatch.sources.base import SourceSettings
    from llmbatch.sources.jsonl import open_jsonl
    from llmbatch.sources.opening import open_source

FOLDER = scratch()
PATH = FOLDER / "rows.jsonl"
BOM = b"\xef\xbb\xbf"


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    settings = SourceSettings(path=str(PATH), format="jsonl")
    expected = sum(1 for line in data.removeprefix(BOM).split(b"\n") if line.strip())
    try:
        source = open_source(settings)
    except SourceError:
        assert expected == 0
        return
    rows = list(source.rows())
    assert [row.index for row in rows] == list(range(expected))
    for row in rows:
        check(row)
    middle = rows[len(rows) // 2]
    assert list(open_jsonl(settings).rows(middle.cursor)) == rows[middle.index :]


def check(row: Row) -> None:
    assert (row.failure is None) or not row.data
    json.dumps([row.id, dict(row.data)], ensure_ascii=False, allow_nan=False).encode("utf-8", "strict")
    if row.failure is not None:
        assert row.failure.message.isprintable()
        assert len(row.failure.message) < 1000


if __name__ == "__main__":
    seeds = [b"\n".join(mutated_lines(4, seed)) for seed in range(40)] + [BOM + b'{"id": 1}\r\n\n{"id": 2}', b"", b"\n"]
    words = [
        "\\ud800",
        "\\udc00",
        "NaN",
        "-Infinity",
        "1e999",
        '"id"',
        '"text"',
        "\ufeff",
        "\r\n",
        "\0",
        "[[[[[[[[",
        '{"a":{"a":',
        "null",
    ]
    fuzz(target, seeds, words, FOLDER)
