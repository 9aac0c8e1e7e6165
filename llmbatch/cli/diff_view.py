"""What differs between two runs in; what a person sees of it on a terminal out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from llmbatch.core import words
from llmbatch.core.word_diff import Piece, word_diff
from llmbatch.folder.differences import DiffCounts, Difference, answer, ending

_AROUND = 80  # characters of what did not change that are shown on either side of what did
_STYLES = {"same": "", "removed": "red", "added": "green"}
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_CALLED = {"answer": "another answer", "only_a": "only in A", "only_b": "only in B"}


def print_counts(console: Console, folders: tuple[Path, Path], counts: DiffCounts, notes: Sequence[str]) -> None:
    """How many rows differ in which way."""
    for name, folder, rows in zip("AB", folders, (counts.rows_a, counts.rows_b), strict=True):
        _line(console, f"{name}  {folder}: {words.count(rows)} rows")
    for note in notes:
        _line(console, f"Note: {note}", "yellow")
    by_kind = counts.by_kind
    said = {
        "same": counts.same,
        "ended otherwise": by_kind["status"],
        "another answer": by_kind["answer"],
        "only in A": by_kind["only_a"],
        "only in B": by_kind["only_b"],
    }
    _line(console, words.counts(said) or "no rows", "bold")
    for (before, after), rows in sorted(counts.changes.items(), key=lambda item: -item[1]):
        _line(console, f"  {before} -> {after}: {words.count(rows)}")
    if counts.rows_a and counts.rows_b and counts.rows_a == by_kind["only_a"]:
        _line(
            console,
            "Note: no row of A has an id that a row of B has; were both run with the same --id-field?",
            "yellow",
        )


def print_difference(console: Console, found: Difference) -> None:
    """One row: in which way it differs, and what became of its answer."""
    record = found.a or found.b or {}
    called = _CALLED.get(found.kind) or f"{ending(found.a or {})} -> {ending(found.b or {})}"
    _line(console, "")
    _line(console, words.one_line(f"row {record['id']} (index {record['index']}): {called}"), "bold cyan")
    for name, each in (("A", found.a), ("B", found.b)):
        if each is not None and (error := each.get("error")) is not None:
            _line(console, f"{name}, why: {error['message']}", "yellow")
    if found.a is not None and found.b is not None:
        before, after = answer(found.a), answer(found.b)
        if before is not None and after is not None:
            console.print(_marked(word_diff(_written(before), _written(after)), console), soft_wrap=True)
            return
    for kind, each in (("removed", found.a), ("added", found.b)):
        if each is not None and (said := answer(each)) is not None:
            console.print(_marked([Piece(kind, _written(said))], console), soft_wrap=True)  # type: ignore[arg-type]


def print_rest(console: Console, rows: int) -> None:
    """How many more there are."""
    if rows > 0:
        _line(console, f"\nand {words.count(rows)} more; --limit 0 shows all", "dim")


def _marked(pieces: Sequence[Piece], console: Console) -> Text:
    """The pieces in colours; where there are none, between marks, as ``wdiff`` has them."""
    coloured = console.color_system is not None
    text = Text()
    for kind, said in _shortened(pieces):
        before, after = ("", "") if coloured else _MARKS[kind]
        blank = " reverse" if coloured and kind != "same" and said.isspace() else ""
        text.append(f"{before}{words.printable(said)}{after}", style=f"{_STYLES[kind]}{blank}".strip())
    return text


def _shortened(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """With what is far from any change left out."""
    if all(piece.kind == "same" for piece in pieces):
        yield from pieces
        return
    for place, piece in enumerate(pieces):
        start = _AROUND if place else 0
        end = _AROUND if place < len(pieces) - 1 else 0
        if piece.kind != "same" or len(piece.text) <= start + end + 3:
            yield piece
        else:
            yield Piece("same", f"{piece.text[:start]} … {piece.text[len(piece.text) - end :]}")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(words.printable(text), style=style), soft_wrap=True)
