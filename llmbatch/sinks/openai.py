"""A finished run in, ``results.openai.jsonl`` out: the output format of OpenAI's Batch API, for tools that read that.

A line has a ``response`` where the record is ok and else an ``error``, never both; what else is known of a record that is not
ok is in ``results.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llmbatch.core.files import atomic_write
from llmbatch.formats.base import Answered, wire_format
from llmbatch.sinks.base import Finished, Output

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_openai(finished: Finished, output: Output) -> list[Path]:
    """Lines in input order."""
    path = output.folder / "results.openai.jsonl"
    atomic_write(path, _lines(finished))
    return [path]


def _lines(finished: Finished) -> Iterator[bytes]:
    result = wire_format("openai").result
    for record, row in finished.pairs():
        answered = Answered(record, row.data, finished.asked(row), finished.model, finished.created)
        yield _encode(result(answered)).encode() + b"\n"
