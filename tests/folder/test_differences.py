from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from llmbatch.core.record import record_to_line
from llmbatch.core.types import Failure, FailureKind, Record, RowId, Status, Usage
from llmbatch.folder import differences as module
from llmbatch.folder.differences import DiffCounts, Difference, differences


def ok(index: int, row_id: RowId, output: Any, cached: int = 0) -> Record:
    return Record(index, row_id, Status.OK, output, attempts=1, usage=Usage(10, 5, cached))


def wrong(index: int, row_id: RowId, kind: FailureKind, raw: str | None) -> Record:
    return Record(index, row_id, kind.status, failure=Failure(kind, "why"), raw=raw)


def diff(a: Iterable[Record], b: Iterable[Record]) -> tuple[list[Difference], DiffCounts]:
    counts = DiffCounts()
    found = list(differences(map(record_to_line, a), map(record_to_line, b), counts))
    return found, counts


def ids(found: Iterable[Difference]) -> list[tuple[str, RowId]]:
    return [(each.kind, (each.a or each.b or {})["id"]) for each in found]


def test_records_that_say_the_same_do_not_differ_whatever_the_cache_held() -> None:
    found, counts = diff([ok(0, "a", {"x": 1}, cached=0)], [ok(0, "a", {"x": 1}, cached=8)])
    assert found == []
    assert (counts.rows_a, counts.rows_b, counts.same) == (1, 1, 1)


def test_each_kind_of_difference_is_told_and_counted() -> None:
    a = [ok(0, "a", "x"), ok(1, "b", "x"), wrong(2, "c", FailureKind.SCHEMA, "1"), ok(3, "d", "x"), ok(4, 4, "x")]
    b = [
        ok(0, "a", "y"),
        wrong(1, "b", FailureKind.SCHEMA, "x"),
        wrong(2, "c", FailureKind.EMPTY, "1"),
        ok(3, "e", "x"),
        ok(4, 4, "x"),
    ]
    found, counts = diff(a, b)
    assert ids(found) == [("answer", "a"), ("status", "b"), ("status", "c"), ("only_a", "d"), ("only_b", "e")]
    assert counts.by_kind == {"answer": 1, "status": 2, "only_a": 1, "only_b": 1}
    assert counts.changes == {("ok", "invalid (schema)"): 1, ("invalid (schema)", "invalid (empty)"): 1}
    assert (counts.rows_a, counts.rows_b, counts.same) == (5, 5, 1)


def test_another_text_that_did_not_do_is_another_answer() -> None:
    found, _ = diff([wrong(0, "a", FailureKind.CHOICE, "x")], [wrong(0, "a", FailureKind.CHOICE, "y")])
    assert ids(found) == [("answer", "a")]


def test_a_number_and_its_digits_are_two_ids() -> None:
    assert ids(diff([ok(0, 7, "x")], [ok(0, "7", "x")])[0]) == [("only_a", 7), ("only_b", "7")]


def test_rows_with_one_id_are_paired_one_after_the_other() -> None:
    a = [ok(0, "a", "x"), ok(1, "a", "y"), ok(2, "b", "z")]
    assert diff(a, [ok(0, "b", "z"), ok(1, "a", "x"), ok(2, "a", "y")])[0] == []
    assert ids(diff(a, [ok(0, "a", "x"), ok(1, "b", "z")])[0]) == [("only_a", "a")]


@pytest.mark.parametrize("in_memory", [0, 2_000, 1 << 30])
def test_however_the_rows_are_ordered_and_wherever_they_wait_the_differences_are_the_same(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
    names = [f"r{number}" for number in range(300)]
    a = [ok(index, name, "x") for index, name in enumerate(names)]
    random.Random(0).shuffle(names)
    b = [ok(index, name, "y" if name == "r7" else "x") for index, name in enumerate([*names[:250], "new"])]
    found, counts = diff(a, b)
    assert ("answer", "r7") in ids(found) or "r7" in names[250:]
    assert sorted(ids(found)) == sorted(
        [("answer", "r7")] * ("r7" in names[:250]) + [("only_b", "new")] + [("only_a", name) for name in names[250:]]
    )
    assert (counts.rows_a, counts.rows_b, counts.same + sum(counts.by_kind.values())) == (300, 251, 301)
