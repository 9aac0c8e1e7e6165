"""Numbers of 32 bits as JSON, and back."""

from __future__ import annotations

import json
import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.numbers import json_text, not_finite, plain
from llmbatch.core.record import record_from_dict, record_to_dict, record_to_line
from llmbatch.core.types import FailureKind, Record, Status

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, max_size=40))
def test_the_text_and_the_plain_numbers_give_exactly_the_same_numbers_again(numbers: list[float]) -> None:
    given_ = array("f", numbers)
    assert array("f", json.loads(json_text(given_))) == given_
    assert array("f", plain(given_)) == given_
    assert json.loads(json_text(given_)) == plain(given_)


def test_it_is_the_shortest_text() -> None:
    assert json_text(array("f", [0.1, 1.0, -2.5, 1e-7])) == "[0.1,1,-2.5,1e-07]"
    assert json_text(array("f", [0.1] * 20)) == f"[{','.join(['0.1'] * 20)}]"
    assert json_text(array("f")) == "[]"


@pytest.mark.parametrize("bits", [0x00000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x3DCCCCCD], ids=hex)
def test_the_ends_of_the_range_come_out_as_they_went_in(bits: int) -> None:
    (number,) = struct.unpack("f", struct.pack("I", bits))
    for count in (1, 20):
        numbers = array("f", [number] * count)
        assert array("f", json.loads(json_text(numbers))).tobytes() == numbers.tobytes()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("count", [1, 30])
def test_what_is_not_finite_is_a_failure_that_says_which_and_no_json(bad: float, count: int) -> None:
    numbers = array("f", [1.0] * count + [bad])
    failure = not_finite(numbers)
    assert failure is not None
    assert failure.kind is FailureKind.NOT_FINITE
    assert f"number {count}" in failure.message
    with pytest.raises(ValueError, match="NaN or infinite"):
        json_text(numbers)


def test_infinities_that_cancel_out_are_found() -> None:
    assert not_finite(array("f", [math.inf, -math.inf])) is not None
    assert not_finite(array("f", [3e38, 3e38, -3e38])) is None


@pytest.mark.parametrize("row_id", ["a", ',"output":null,', '","output":null,"x', 7], ids=str)
def test_a_record_of_numbers_is_the_line_that_its_dict_says(row_id: str | int) -> None:
    record = Record(3, row_id, Status.OK, array("f", [0.1, 0.25] * 20), "stop", 1, details={"output": None})
    line = json.loads(record_to_line(record))
    assert line == record_to_dict(record)
    assert list(line) == list(record_to_dict(record))
    assert array("f", record_from_dict(line).output) == record.output
