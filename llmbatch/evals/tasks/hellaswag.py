"""A row of HellaSwag in; the same row with its query, and its texts cleaned as lm-evaluation-harness does, out."""

from __future__ import annotations

import re
from typing import Any

_BRACKETS = re.compile(r"\[.*?\]")


def prepare(row: dict[str, Any]) -> dict[str, Any]:
    """``query`` is the scene so far; the texts come from WikiHow with marks such as [header] in them."""
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return {
        **row,
        "query": cleaned(f"{row['activity_label']}: {context}"),
        "endings": [cleaned(ending) for ending in row["endings"]],
        "label": int(row["label"]),
    }


def cleaned(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", text).replace("  ", " ")
