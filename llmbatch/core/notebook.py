"""Records and where a run stands in; small pieces of HTML for a notebook out, in which everything from outside is escaped.

Nothing here needs a notebook or its libraries: ``_repr_html_`` is a convention, and what calls it is the notebook.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from llmbatch.core.words import count, one_line, printable

COLOURS = {"ok": "#2a9d55", "invalid": "#d9a400", "truncated": "#d9a400", "failed": "#c8373a", "skipped": "#3a8fb7"}
_SHOWN = 2000  # characters of an answer in the display of one record
_CELL = 120  # and in a table of several


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML. Imports nothing."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def record_html(record: Any) -> str:
    """One record: its status, output, what went wrong and what it took."""
    rows = [("output", _value(record.output, _SHOWN))]
    if record.failure is not None:
        rows.append(("error", f"{escape(record.failure.kind)}: {_text(record.failure.message, _SHOWN)}"))
    if record.raw is not None:
        rows.append(("raw", _value(record.raw, _SHOWN)))
    for number, attempt in enumerate(record.history, 1):
        said = f"{escape(attempt.failure.kind)}: {_text(attempt.failure.message, _CELL)}"
        rows.append((f"sent back, {number}", f"{_value(attempt.text, _CELL)}<br>{said}"))
    usage = record.usage
    rows.append(("tokens", f"{count(usage.prompt_tokens)} in, {count(usage.completion_tokens)} out"))
    head = f"{badge(record.status)} <b>{_text(str(record.id), _CELL)}</b>"
    return f"<div>{head}{table(rows)}</div>"


def records_html(records: Iterable[Any]) -> str:
    """A few records as a table."""
    rows = [
        (
            _text(str(record.id), _CELL),
            badge(record.status),
            _value(record.output, _CELL) if record.failure is None else _text(record.failure.message, _CELL),
        )
        for record in records
    ]
    return table(rows, ("id", "status", "output, or what went wrong"))


def bar(parts: Mapping[str, float], total: float) -> str:
    """A bar with a piece for each status; what is not done yet stays empty."""
    pieces = "".join(
        f'<span style="display:inline-block;height:100%;width:{100 * part / total:.2f}%;background:{COLOURS.get(name, "#888")}" '
        f'title="{escape(name)} {count(part)}"></span>'
        for name, part in parts.items()
        if part
    )
    style = "height:.7em;border-radius:.35em;overflow:hidden;background:#8883;white-space:nowrap;font-size:1em"
    return f'<div style="{style};max-width:40em;line-height:0">{pieces}</div>' if total else ""


def badge(status: str) -> str:
    style = f"color:{COLOURS.get(status, 'inherit')};font-weight:bold;white-space:nowrap"
    return f'<span style="{style}">{escape(status)}</span>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Cells that are HTML already."""
    cell = 'style="text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"'
    lines = ["<tr>" + "".join(f"<th {cell}>{name}</th>" for name in head) + "</tr>"] if head else []
    lines += ["<tr>" + "".join(f"<td {cell}>{part}</td>" for part in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _value(value: Any, limit: int) -> str:
    """An answer: text as it is, anything else as JSON; cut where it is long."""
    if value is None:
        return '<span style="opacity:.6">none</span>'
    if isinstance(value, str):
        return _text(value, limit)
    if isinstance(value, Sequence) and len(value) > limit:  # a vector
        value = [*value[:4], "..."]
    return _text(json.dumps(value, ensure_ascii=False, default=str), limit)


def _text(text: str, limit: int) -> str:
    return escape(one_line(text, limit)) if limit <= _CELL else escape(printable(text[:limit]))


__all__ = ["bar", "in_notebook", "record_html", "records_html", "table"]
