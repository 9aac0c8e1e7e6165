from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.seldon import line_of


def read(record: Any, data_type: str = "raw", chat: bool = False) -> Any:
    return wire_format("seldon", {"data_type": data_type, "chat": chat}).read({"record": record}, ())


@pytest.mark.parametrize(
    ("data_type", "record"),
    [
        ("data", [["a"], ["b"]]),
        ("data", ["a", "b"]),
        ("raw", {"data": {"names": ["p"], "ndarray": [["a"], ["b"]]}}),
    ],
    ids=str,
)
def test_several_texts_are_several_prompts(data_type: str, record: Any) -> None:
    assert read(record, data_type) == Rendered(Prompt(text="a"), {}, more=(Prompt(text="b"),))


@pytest.mark.parametrize(
    ("data_type", "record"),
    [
        ("str", "a"),
        ("json", "a"),
        ("json", {"prompt": "a"}),
        ("raw", {"strData": "a", "meta": {}}),
        ("raw", {"jsonData": {"text_input": "a"}}),
    ],
    ids=str,
)
def test_a_text_is_a_prompt(data_type: str, record: Any) -> None:
    assert read(record, data_type) == Rendered(Prompt(text="a"), {})
    assert read(record, data_type, chat=True).prompt == Prompt(messages=({"role": "user", "content": "a"},))


def test_of_a_json_object_all_else_is_sampling() -> None:
    found = read({"prompt": "a", "max_tokens": 3, "temperature": 0}, "json")
    assert found == Rendered(Prompt(text="a"), {"max_tokens": 3, "temperature": 0})
    back = wire_format("seldon").write("x", found, "m")
    assert wire_format("seldon", {"data_type": "raw"}).read(back, ()) == found


@pytest.mark.parametrize(
    ("data_type", "record", "said"),
    [
        ("str", 5, "a record of the data type str is a JSON string, and this is of type integer"),
        ("data", {"a": 1}, "is a list of lists, and this is of type object"),
        ("raw", "x", "is a message, an object"),
        ("raw", {"meta": {}}, "a message has one of data, strData, jsonData, and this has meta"),
        ("raw", {"data": {"tensor": {}}}, "is an ndarray here"),
        ("data", [[1]], "the data holds 1 of type integer"),
        ("json", {"x": "a"}, "no key of the JSON object holds the prompt"),
        ("json", 5, "the prompt is to be a text"),
        ("json", {"prompt": "a", "max_tokens": 0}, "jsonData.max_tokens is 0"),
        ("json", {"prompt": "a", "n": 2}, "one answer for each prompt"),
        ("json", {"prompt": "a", "tokens": 0}, "jsonData.tokens is not supported"),
        ("str", "a\ud800", "half a surrogate pair"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_the_row_s_failure(data_type: str, record: Any, said: str) -> None:
    found = read(record, data_type)
    assert isinstance(found, Failure)
    assert said in found.message


@pytest.mark.parametrize("record", [[], [[""]], [["a"], [" "]]], ids=str)
def test_a_blank_prompt_is_a_failure_of_its_kind(record: Any) -> None:
    assert read(record, "data").kind is FailureKind.EMPTY_PROMPT


def answer(record: Any, output: Any, data_type: Any = None, samples: int = 1) -> dict[str, Any]:
    told = {"id": 0, "index": 0, "status": "ok", "output": output, "finish_reason": "stop", "usage": {}}
    return line_of(Answered(told, {"record": record}, Asked(samples=samples), "m", 5, 2), data_type, "b", strict=False)


@pytest.mark.parametrize(
    ("record", "output", "samples", "told"),
    [
        ([["a"], ["b"]], ["A", "B"], 2, {"data": {"names": ["text_output"], "ndarray": [["A"], ["B"]]}}),
        ([["a", "b"]], ["A", "B"], 2, {"data": {"names": ["text_output"], "ndarray": [["A", "B"]]}}),
        ("a", "A", 1, {"strData": "A"}),
        ({"prompt": "a"}, {"x": 1}, 1, {"jsonData": {"x": 1}}),
    ],
    ids=str,
)
def test_the_answer_has_the_form_of_what_was_asked(record: Any, output: Any, samples: int, told: Any) -> None:
    line = answer(record, output, samples=samples)
    tags = line.pop("meta")["tags"]
    assert line == told
    assert (tags["batch_id"], tags["batch_index"]) == ("b", 2)


def test_json_that_looks_like_another_type_is_answered_as_json_where_that_is_said() -> None:
    assert answer("a", "A", "json")["jsonData"] == "A"


def test_the_tags_of_a_message_come_back() -> None:
    assert answer({"strData": "a", "meta": {"tags": {"mine": 7}}}, "A")["meta"]["tags"]["mine"] == 7
