from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.accept.base import AcceptSettings, Fell, details_of_fall
from llmbatch.accept.selection import NEAR, Decided, Selection, decided_of
from llmbatch.accept.similar import Kept
from llmbatch.core.types import Failure, FailureKind, Record, Status

WORDS = [f"w{number}" for number in range(2000)]


def record(index: int, output: Any = "yes", **fields: Any) -> Record:
    return Record(index, f"r{index}", Status.OK, output, **fields)


def fallen(index: int) -> Record:
    return record(index, details=details_of_fall(Fell("output.score >= 4")))


def accepted(records: list[Record], **settings: Any) -> tuple[list[int], Decided]:
    selection = Selection(AcceptSettings(**settings))
    return list(selection.among((each.index, each) for each in records)), selection.decided


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=40)) for _ in range(count)]


def varied(text: str, words: int) -> str:
    """The text with so many of its words changed, next to each other."""
    return " ".join([*("other" for _ in range(words)), *text.split()[words:]])


def test_the_first_rows_that_meet_the_conditions_are_accepted_and_no_more_than_are_wanted() -> None:
    failed = Record(1, 1, Status.INVALID, failure=Failure(FailureKind.SCHEMA, "'score' is missing"))
    records = [record(0), failed, fallen(2), record(3), record(4), fallen(5)]
    taken, decided = accepted(records, rows=2)
    assert taken == [0, 3]
    assert (decided.candidates, decided.accepted, decided.surplus) == (4, 2, 2)
    assert {reason: (fell.rows, fell.id) for reason, fell in decided.fell.items()} == {
        "invalid: schema": (1, 1),
        "output.score >= 4": (1, "r2"),
    }


def test_without_a_number_all_that_meet_the_conditions_are_accepted() -> None:
    assert accepted([record(0), fallen(1), record(2)])[0] == [0, 2]


def test_a_near_duplicate_of_an_accepted_row_falls_and_one_of_a_fallen_row_does_not() -> None:
    first, second = texts(2)
    near = varied(first, 2)
    records = [
        record(0, first, details=details_of_fall(Fell("no"))), record(1, near), record(2, first), record(3, second),
        record(4, second.upper()),
    ]  # fmt: skip
    taken, decided = accepted(records, unique=True)
    assert taken == [1, 3]
    assert decided.fell[NEAR].rows == 2
    assert "'r1'" in decided.fell[NEAR].message


def test_what_is_compared_may_be_a_part_of_the_output() -> None:
    same, other = texts(2)
    records = [record(index, {"question": text, "n": index}) for index, text in enumerate([same, same, other])]
    assert accepted(records, unique="output.question")[0] == [0, 2]
    taken, decided = accepted([record(0, {"n": 1})], unique="output.question")
    assert taken == []
    assert list(decided.fell) == ["unique: no output.question"]


def test_the_same_rows_are_accepted_one_by_one_and_all_at_once() -> None:
    rng = random.Random(3)
    base = texts(150)
    outputs = [varied(rng.choice(base), rng.randrange(6)) for _ in range(600)]
    settings = AcceptSettings(rows=120, unique=True)
    records = [record(index, output) for index, output in enumerate(outputs)]
    together = list(Selection(settings).among((each.index, each) for each in records))
    alone = Selection(settings)
    assert [each.index for each in records if alone.accepts(each)] == together
    assert len(together) == 120
    assert decided_of(settings, records) == alone.decided


def test_of_texts_that_are_similar_enough_hardly_any_is_missed_and_of_others_none_is_taken_for_one() -> None:
    kept = Kept(0.8)
    base = texts(1500)  # more than the tables begin with
    for sketch in kept.sketches(base):
        assert kept.near(sketch) is None
        kept.keep(sketch)
    found = [kept.near(sketch) for sketch in kept.sketches([varied(text, 1) for text in base])]
    assert sum(near is not None and near.number == number for number, near in enumerate(found)) > 1480
    assert all(kept.near(sketch) is None for sketch in kept.sketches([varied(text, 20) for text in base]))


@pytest.mark.parametrize("unique", ["row.text", "", "output.", {"similarity": 1}])
def test_what_cannot_be_compared_is_refused(unique: Any) -> None:
    with pytest.raises(ValidationError):
        AcceptSettings(unique=unique)
