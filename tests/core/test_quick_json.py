"""The quick reading and writing of JSON against Python's own: the same values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmbatch.core.quick_json import Form, hole, json_line, parse_line, text_json, value_json

_TEXT = some.text(some.characters(exclude_categories=["Cs"]))
_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: some.lists(inner) | some.dictionaries(_TEXT, inner),
)


@given(_JSON, some.booleans())
def test_every_value_is_read_as_by_python(value: Any, escaped: bool) -> None:
    raw = json.dumps(value, ensure_ascii=escaped).encode()
    assert repr(parse_line(raw)) == repr(json.loads(raw))  # with the types of all numbers, and the signs of their zeros


@given(_JSON)
def test_every_value_is_written_so_that_it_is_read_again(value: Any) -> None:
    line = json_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert repr(json.loads(line)) == repr(value)


@given(some.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?\Z"))
def test_every_number_is_the_same_one(number: str) -> None:
    assert repr(parse_line(number.encode())) == repr(json.loads(number))


@pytest.mark.parametrize(
    "number",
    [str(10**4299), f"-{7 * 10**4000}", "9223372036854775808", "-9223372036854775809", "-0", "-0.0"],
    ids=["long", "negative", "64", "-64", "zero", "float"],
)
def test_whole_numbers_are_exact(number: str) -> None:
    value = parse_line(number.encode())
    assert repr(value) == repr(json.loads(number))
    assert repr(json.loads(json_line([value]))) == repr([value])


@pytest.mark.parametrize("depth", [100, 190, 240, 500])
def test_what_is_nested_deeply_is_read(depth: int) -> None:
    assert parse_line(b"[" * depth + b"]" * depth) == json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    "raw", [b'"\xff"', b"{} x", b"", b"01", b"+1", b"[1,]", b'"\x01"', b"{a: 1}", b"tru", b'{"a":'], ids=repr
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of either parser
        parse_line(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}), (b' \t\r\n["\\u0000\\/\\ud83d\\ude00"]\r\n', ["\0/\U0001f600"])],
    ids=["twice", "escapes"],
)
def test_the_last_of_equal_keys_wins_and_escapes_are_characters(raw: bytes, value: Any) -> None:
    assert repr(parse_line(raw)) == repr(value)


@given(_TEXT)
def test_a_text_is_written_as_it_is_among_other_values(text: str) -> None:
    assert text_json(text).encode() + b"\n" == json_line(text)


@given(_JSON)
def test_a_value_is_written_as_it_is_on_a_line(value: Any) -> None:
    assert value_json(value).encode() + b"\n" == json_line(value)


@given(_JSON, _JSON, some.integers(0, 10**30), _TEXT)
def test_a_form_that_is_filled_is_the_line_of_the_value_without_holes(
    first: Any, second: Any, number: int, beside: str
) -> None:
    beside = beside.replace("\0", "")

    def value(a: Any, b: Any, c: Any) -> Any:
        return {"a": [a, b, a], f"{beside}%s": f"{beside}-{c}-%(c)s", beside: [None, 1.5, beside], "c": c}

    form = Form(value(hole("a"), hole("b"), hole("c")))
    texts = {"a": value_json(first), "b": value_json(second), "c": number}
    assert form.line(texts) == json_line(value(first, second, number))
    for known in (("b",), ("a", "c"), ("a", "b", "c")):
        form = Form(value(hole("a"), hole("b"), hole("c")), known={name: str(texts[name]) for name in known})
        assert form.line(texts) == json_line(value(first, second, number))
