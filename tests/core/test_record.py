from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.record import json_decoder, json_encoder, record_from_dict, record_to_dict, record_to_line
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage

text = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts)
failures = st.builds(Failure, st.sampled_from(FailureKind), text)
reasons = st.sampled_from(["stop", "length", "error", "abort", None])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    index = draw(counts)
    keys = st.builds(RequestKey, st.just(index), counts, counts, counts, st.just(0))
    attempts = st.builds(Attempt, keys, failures, usages, st.none() | text, reasons)
    return Record(
        index=index,
        id=draw(text | st.integers()),
        status=draw(st.sampled_from(Status)),
        output=draw(values),
        finish_reason=draw(reasons),
        attempts=draw(counts),
        usage=draw(usages),
        wasted=draw(usages),
        failure=draw(st.none() | failures),
        raw=draw(st.none() | text),
        reasoning=draw(st.none() | text | st.lists(st.none() | text, min_size=1, max_size=3)),
        logprobs=draw(st.none() | st.lists(st.dictionaries(text, values, max_size=2), min_size=1, max_size=2)),
        history=tuple(draw(st.lists(attempts, max_size=3))),
        input=draw(st.none() | st.dictionaries(text, values, max_size=3)),
        tool_calls=draw(st.none() | st.lists(st.dictionaries(text, values, max_size=2), min_size=1, max_size=2)),
    )


@given(records())
def test_a_line_gives_back_the_record_it_was_made_of(record: Record) -> None:
    line = record_to_line(record)
    assert line.count(b"\n") == 1
    assert record_from_dict(json.loads(line)) == record
    assert record_to_line(record_from_dict(json.loads(line))) == line


@given(records())
def test_a_line_has_the_bytes_that_json_gives_it(record: Record) -> None:
    expected = json.dumps(record_to_dict(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    assert record_to_line(record) == expected.encode() + b"\n"


def test_what_is_always_there_is_there_and_the_rest_only_where_there_is_something_to_say() -> None:
    line = record_to_dict(Record(3, "a", Status.OK, "yes", "stop", 1, Usage(5, 2)))
    assert list(line) == ["id", "index", "status", "output", "finish_reason", "attempts", "usage"]
    assert line["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 0,
        "wasted": {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0},
    }  # fmt: skip


def test_text_is_written_as_it_is_and_not_escaped() -> None:
    assert "naïve – 日本".encode() in record_to_line(Record(0, "naïve – 日本", Status.OK))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_or_utf8_cannot_hold_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        record_to_line(Record(0, 0, Status.OK, value))


@pytest.mark.parametrize("broken", [{}, {"index": 0}, {"usage": {"wasted": {}, "more": 1}}, {"usage": []}])
def test_what_is_not_a_record_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        record_from_dict(broken)


@given(values)
def test_an_encoder_with_other_separators_writes_what_pythons_does(value: Any) -> None:
    plain = json.JSONEncoder(ensure_ascii=False)
    assert json_encoder(plain)(value) == plain.encode(value)


@pytest.mark.parametrize("line", ['{"a": 1}', '{"a": 1}\n', "[1]\r\n", ' {"a": 1} \t\n', "7", '"x"  ', "null\n"])
def test_a_decoder_reads_what_pythons_reads(line: str) -> None:
    assert json_decoder(json.JSONDecoder())(line) == json.loads(line)


@pytest.mark.parametrize("line", ["", "\n", '{"a": 1', '{"a": 1} x', "{} {}", "nul", '{"a": }'])
def test_a_decoder_says_of_what_is_no_json_what_pythons_says(line: str) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(line)
    with pytest.raises(json.JSONDecodeError) as raised:
        json_decoder(json.JSONDecoder())(line)
    assert str(raised.value) == str(expected.value)
