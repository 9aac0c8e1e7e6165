from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmbatch.core.types import Cursor
from llmbatch.sources.base import Source


def test_every_row_comes_so_many_times_one_after_another(
    write: Callable[..., Path], source: Callable[..., Source]
) -> None:
    path = write("a.jsonl", '{"id": "x", "n": 1}\n{"n": 2}\nnot json\n')
    rows = list(source(path, repeat=2).rows())
    assert [(row.index, row.id, row.data.get("n")) for row in rows] == [
        (0, "x#0", 1), (1, "x#1", 1), (2, "1#0", 2), (3, "1#1", 2), (4, "2#0", None), (5, "2#1", None),
    ]  # fmt: skip
    assert rows[5].failure is not None


def test_it_can_be_entered_at_any_row(write: Callable[..., Path], source: Callable[..., Source]) -> None:
    path = write("a.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(10)))
    repeated = source(path, repeat=3, limit=8)
    rows = list(repeated.rows())
    assert len(rows) == 24
    for start in (1, 4, 11, 23):
        assert list(repeated.rows(rows[start].cursor)) == rows[start:]
    assert repeated.locate(rows[4].cursor).endswith("a.jsonl:2")


def test_digests_of_neighbours_cover_every_row_whatever_row_they_meet_in(
    write: Callable[..., Path], source: Callable[..., Source]
) -> None:
    lines = [f'{{"n": {n}}}\n' for n in range(6)]
    before = source(write("a.jsonl", "".join(lines)), repeat=3)
    cursors = [row.cursor for row in before.rows()]
    for changed in range(6):
        after = source(write("b.jsonl", "".join([*lines[:changed], '{"n": 9}\n', *lines[changed + 1 :]])), repeat=3)
        for middle in (7, 8, 9):
            pairs: list[tuple[Cursor, Cursor | None]] = [(cursors[0], cursors[middle]), (cursors[middle], None)]
            assert any(before.digest(*pair) != after.digest(*pair) for pair in pairs)
