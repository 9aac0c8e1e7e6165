from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.check.strict_json import MAX_DEPTH, JsonError, parse

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_all_json_that_python_writes_is_read_back(value: object, ascii_only: bool, indent: int | None) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only, indent=indent)) == value


@given(st.text() | st.text('[]{}":,\\ud8019.eE-+NaInfity '))
def test_any_text_is_either_refused_or_a_value_that_can_be_written_as_utf8(text: str) -> None:
    try:
        value = parse(text)
    except JsonError:
        return
    written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(written) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('```json\n{"a": 1}\n```', "inside a Markdown code fence"),
        ('Sure! {"a": 1}', "begins with 'Sure! {"),
        ('{"a": 1}\nHope this helps', "text follows the JSON: 'Hope this helps'"),
        ('{"a": 1}{"b": 2}', "text follows the JSON"),
        ('{"a": 1', "ends too early"),
        ("{'a': 1}", "Expecting property name"),
        ('{"a": 1,}', "Expecting property name"),
        ('{"a": "x\ny"}', "Invalid control character"),
        ("", "blank"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "too large"),
        ("9" * 5000, "too long"),
        ('{"a": 1, "a": 1}', "has the key 'a' more than once"),
        ('[{"x": {"b": 1, "c": 2, "b": 3}}]', "has the key 'b' more than once"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
        ("\ufeff{}", "which is not JSON"),
    ],
)
def test_what_is_not_json_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse('"\\ud83d\\ude00"') == "\U0001f600"


def test_integers_beyond_64_bits_stay_exact() -> None:
    assert parse(str(10**40)) == 10**40


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return opening * (depth - 1) + ("[]" if opening == "[" else "{}") + closing * (depth - 1)

    assert json.dumps(parse(nested(MAX_DEPTH)), separators=(",", ":")) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 5000, 200_000):
        with pytest.raises(JsonError, match="nested deeper than 128 levels"):
            parse(nested(depth))


def test_many_shallow_brackets_are_not_deep() -> None:
    assert len(parse("[" + "[]," * 1000 + "[]]")) == 1001
