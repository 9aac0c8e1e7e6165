"""A block of JSON in; whether it is JSON, one value or one a line, and where it looks like a record whether it is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> None:
    """Raises what is wrong with it."""
    text = path.read_text(encoding="utf-8")
    try:
        values: list[Any] = [json.loads(text)]
    except ValueError:
        values = [json.loads(line) for line in text.splitlines() if line.strip()]
    for value in values:
        if isinstance(value, dict) and {"index", "status", "attempts"} <= value.keys():
            from llmbatch.core.record import record_from_dict

            record_from_dict(value)
