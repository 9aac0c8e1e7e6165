from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.core.errors import InputChanged, SourceError
from llmbatch.core.types import Cursor
from llmbatch.folder.input import check_input
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source


def settings(draw: dict[str, Any], **others: Any) -> SourceSettings:
    return SourceSettings.model_validate({"draw": draw, **others})


def drawn(draw: dict[str, Any], **others: Any) -> Source:
    return open_source(settings(draw, **others))


def values(draw: Any, rows: int = 3000, **others: Any) -> list[Any]:
    return [row.data["x"] for row in drawn({"x": draw}, rows=rows, **others).rows()]


MANY = {"topic": ["physics", "law"], "level": {"from": 1, "to": 5}, "share": {"from": 0, "to": 1.5}}


def test_a_row_depends_on_the_seed_and_its_number_alone() -> None:
    rows = list(drawn(MANY, rows=50).rows())
    assert [row.index for row in rows] == [row.id for row in rows] == list(range(50))
    endless = drawn({"new": ["variable"], **MANY})
    entered = list(islice(endless.rows(Cursor(20, 0, 20, 20)), 30))
    assert [{k: v for k, v in row.data.items() if k != "new"} for row in entered] == [row.data for row in rows[20:]]
    assert entered[0].cursor == rows[20].cursor
    others = list(drawn(MANY, rows=50, seed=1).rows())
    assert sum(a.data == b.data for a, b in zip(rows, others, strict=True)) < 5


def test_the_rows_are_the_same_in_every_version() -> None:
    assert [list(row.data.values()) for row in drawn(MANY, rows=3).rows()] == [
        ["physics", 2, 0.43889727681147106], ["physics", 4, 1.4098532740928114], ["law", 2, 1.2172136914362248],
    ]  # fmt: skip


def test_values_of_a_list_are_as_likely_as_each_other_or_as_their_weights_say() -> None:
    even = Counter(values(["a", "b", "c"]))
    assert all(900 < count < 1100 for count in even.values())
    weighed = Counter(values({"of": ["a", "b", "never"], "weights": [3, 1, 0]}))
    assert 2150 < weighed["a"] < 2350
    assert weighed["never"] == 0


def test_a_range_has_both_its_ends_and_the_numbers_between_as_they_are_written() -> None:
    assert set(values({"from": 1, "to": 3})) == {1, 2, 3}
    assert set(values({"from": 0.1, "to": 0.9, "step": 0.2})) == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert set(values({"from": -10, "to": 10, "step": 10})) == {-10, 0, 10}
    assert all(isinstance(value, int) for value in values({"from": 1, "to": 3}, 10))
    any_number = values({"from": 0, "to": 0.5})
    assert len(set(any_number)) == 3000
    assert 0 <= min(any_number) < 0.01 < 0.49 < max(any_number) <= 0.5


def test_items_of_a_file_are_its_lines_as_text_or_as_json(write: Callable[..., Path]) -> None:
    text = write("names.txt", "Ann\n\n  Ä b \nlast")
    assert set(values({"items_of": str(text)}, 100)) == {"Ann", "Ä b", "last"}
    rows = write("people.jsonl", '{"name": "Ann"}\n["x"]\n3\n')
    found = values({"items_of": str(rows)}, 100)
    assert {str(value) for value in found} == {"{'name': 'Ann'}", "['x']", "3"}


def test_what_comes_in_turn_comes_in_every_combination_as_often() -> None:
    draw = {"b": {"of": [1, 2], "in_turn": True}, "a": {"from": 1, "to": 3, "in_turn": True}, "by_chance": ["x", "y"]}
    rows = [(row.data["a"], row.data["b"]) for row in drawn(draw, rows=60).rows()]
    assert rows[:6] == [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]
    assert set(Counter(rows).values()) == {10}
    turned = drawn(dict(reversed(draw.items())), rows=60)
    assert [(row.data["a"], row.data["b"]) for row in turned.rows()] == rows


def test_more_rows_are_as_an_input_that_has_grown_and_fewer_or_other_items_as_another(
    write: Callable[..., Path],
) -> None:
    items = write("items.txt", "a\nb\n")
    draw = {"x": {"items_of": str(items)}}
    known = drawn(draw, rows=10).fingerprint()
    assert check_input(drawn(draw, rows=10), known, [], extend=False) == known
    for more in (20, None):
        with pytest.raises(InputChanged, match=r"has grown: 10 rows were to be drawn, now .*--extend"):
            check_input(drawn(draw, rows=more), known, [], extend=False)
        check_input(drawn(draw, rows=more), known, [], extend=True)
    with pytest.raises(InputChanged, match="10 rows were to be drawn, now 9 rows"):
        check_input(drawn(draw, rows=9), known, [], extend=True)
    items.write_text("a\nc\n")
    with pytest.raises(InputChanged, match="files that items are drawn from changed"):
        check_input(drawn(draw, rows=10), known, [], extend=True)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        ({"x": []}, "at least 1"),
        ({"x": {}}, "is a list"),
        ({"x": {"of": [1], "from": 1, "to": 2}}, "is a list"),
        ({"x": {"from": 1}}, "both from and to"),
        ({"x": {"from": 2, "to": 1}}, "from the least number to the greatest"),
        ({"x": {"from": 1, "to": 2, "step": 0}}, "greater than 0"),
        ({"x": {"from": 0, "to": 1e300, "step": 1e-300}}, "too many steps"),
        ({"x": {"from": 0, "to": 0.5, "in_turn": True}}, "give it a step"),
        ({"x": {"of": [1, 2], "weights": [1]}}, "one for each"),
        ({"x": {"of": [1, 2], "weights": [0, 0]}}, "not all 0"),
        ({"x": {"of": [1, 2], "weight": [1, 1]}}, "not permitted"),
    ],
)
def test_what_nothing_can_be_drawn_from_is_refused(draw: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(draw, rows=3)


def test_an_input_is_read_or_drawn_and_not_both() -> None:
    for wrong, words in (
        ({"path": "a.jsonl", "draw": {"x": [1]}}, "cannot be given beside"),
        ({}, "path is missing"),
        ({"path": "a.jsonl", "rows": 5}, "rows is for rows that are drawn"),
        ({"path": "a.jsonl", "seed": 5}, "seed is for rows that are drawn"),
    ):
        with pytest.raises(ValidationError, match=words):
            SourceSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "No such file"),
        ("empty.txt", "\n \n", "there is no item in it"),
        ("bad.jsonl", '{"a": 1}\nnot json\n', r"bad.jsonl:2: is not JSON.*saw: not json"),
        ("bad.txt", b"a\n\xff\n", r"bad.txt:2: is not UTF-8"),
    ],
)
def test_a_file_without_usable_items_is_named(
    write: Callable[..., Path], tmp_path: Path, name: str, content: Any, words: str
) -> None:
    path = tmp_path / name if content is None else write(name, content)
    with pytest.raises(SourceError, match=rf"input\.draw\.x\.items_of: .*{words}"):
        drawn({"x": {"items_of": str(path)}}, rows=3)
