"""A finished run of ``fan_out`` in, ``children.jsonl`` out: a line for each child of each row, in order, in constant memory.

A line is one JSON object like a record: ``id`` (``ROWID/0``, ``ROWID/1``, ...), ``index`` (of the child among all lines),
``status``, ``output``, ``parent`` and ``parent_index`` (the row's id and index), ``number`` (of the child in its row, from 0),
``item``, ``usage`` (of the answers that passed), and where there is something to say ``error`` and ``steps``. How many there are of
each status goes into the report, with how many items became no child: those that a row has before, and those beyond its most.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbatch.core.files import atomic_write
from llmbatch.sinks.base import Finished, Output

CHILDREN = "children.jsonl"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_children(finished: Finished, output: Output) -> list[Path]:
    """A row whose own list did not come has no children; ``errors.jsonl`` has it."""
    path, counts = output.folder / CHILDREN, Counter[str]()
    atomic_write(path, _lines(finished, counts))
    finished.counted("children", counts)
    return [path]


def _lines(finished: Finished, counts: Counter[str]) -> Iterator[bytes]:
    index = 0
    for record in finished.records():
        output = record["output"]
        for name in ("repeated", "left_out") if isinstance(output, dict) else ():
            counts[name] += output.get(name, 0)
        for child, line in zip(children_of(record), child_lines(record, index), strict=True):
            counts[child["status"]] += 1
            index += 1
            yield line


def child_lines(record: dict[str, Any], index: int) -> Iterator[bytes]:
    """The lines of a record's children, the first of which has this index."""
    for number, child in enumerate(children_of(record)):
        yield _encode(_line(record, child, index + number, number)).encode() + b"\n"


def children_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What a record, in its JSON form, says of its row's children."""
    found: list[dict[str, Any]] = (record.get("details") or {}).get("children") or []
    return found


def _line(record: dict[str, Any], child: dict[str, Any], index: int, number: int) -> dict[str, Any]:
    return {
        "id": f"{record['id']}/{number}",
        "index": index,
        "status": child["status"],
        "output": child["output"],
        "parent": record["id"],
        "parent_index": record["index"],
        "number": number,
        **{name: child[name] for name in ("item", "usage", "error", "steps") if name in child},
    }


__all__ = ["CHILDREN", "child_lines", "children_of", "write_children"]
