"""What was written, and what an example says is to be written, in; the first difference, or None, out.

In an expected value the text ``*``, also within a text, stands for anything, and ``*nonempty*`` for a text that is not empty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def difference(seen: Any, expected: Any, place: str = "") -> str | None:
    """Keys must be the same ones, but not in the same order."""
    if isinstance(expected, str) and "*" in expected:
        wanted = "(?s:.+)" if expected == "*nonempty*" else "(?s:.*)".join(map(re.escape, expected.split("*")))
        fits = expected == "*" or (isinstance(seen, str) and re.fullmatch(wanted, seen))
        return None if fits else f"{place}: {seen!r} is not like {expected!r}"
    if isinstance(expected, dict) and isinstance(seen, dict):
        if seen.keys() != expected.keys():
            return f"{place}: has {sorted(seen)}, and is to have {sorted(expected)}"
        found = (difference(seen[key], expected[key], f"{place}.{key}") for key in expected)
    elif isinstance(expected, list) and isinstance(seen, list) and len(seen) == len(expected):
        found = (difference(s, e, f"{place}[{i}]") for i, (s, e) in enumerate(zip(seen, expected, strict=True)))
    else:
        return None if seen == expected and type(seen) is type(expected) else f"{place}: {seen!r} is not {expected!r}"
    return next((each for each in found if each), None)


def difference_of_lines(seen: Path, expected: Path) -> str | None:
    """The same for files of JSON lines."""
    lines = [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in (seen, expected)]
    return difference(*lines, seen.name)
