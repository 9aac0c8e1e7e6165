from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.json_path import Misfit
from llmbatch.formats.outcome import Error, Success, outcome_of
from llmbatch.formats.sagemaker import SageMaker

CHAT = [{"role": "user", "content": "hi"}]


def made(**options: Any) -> SageMaker:
    format_ = wire_format("sagemaker", options)
    assert isinstance(format_, SageMaker)
    return format_


def asked(record: Any, **options: Any) -> Any:
    return made(**options).read({"record": record}, ())


def answered(
    record: Any, status: str = "ok", output: Any = "out", finish_reason: str = "stop", **more: Any
) -> Answered:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0}
    line = {
        "id": 0,
        "index": 0,
        "status": status,
        "output": output,
        "finish_reason": finish_reason,
        "usage": usage,
        **more,
    }
    return Answered(line, {} if record is ... else {"record": record}, Asked(), "demo", 1_700_000_000)


def outcome(row: Answered, *, strict: bool = False) -> Success | Error:
    read = made().read(row.row, ()) if row.row else None
    asked = Asked(own_check=isinstance(read, Rendered) and read.output is not None)
    return outcome_of(row.record, asked, strict=strict)


def written(record: Any, options: Any = None, **fields: Any) -> Any:
    format_, row = made(**(options or {})), answered(record, **fields)
    said = outcome_of(row.record, row.asked)
    assert isinstance(said, Success)
    return format_.written(row, said)


def test_a_text_is_the_prompt() -> None:
    assert asked("one loaf") == Rendered(Prompt(text="one loaf"))
    assert asked({"text": "one loaf"}, input_filter="$.text") == Rendered(Prompt(text="one loaf"))
    assert asked(" ").kind is FailureKind.EMPTY_PROMPT


def test_what_text_generation_containers_take_is_read_with_its_parameters() -> None:
    parameters = {
        "max_new_tokens": 9, "stop_sequences": ["x"], "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1,
        "repetition_penalty": 1.1, "do_sample": True, "details": True, "watermark": False, "truncate": None,
    }  # fmt: skip
    read = asked({"inputs": "hi", "parameters": parameters})
    assert read.prompt == Prompt(text="hi")
    assert dict(read.sampling) == {
        "max_tokens": 9, "stop": ["x"], "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert dict(asked({"inputs": "hi", "parameters": {"do_sample": False, "temperature": 0.9}}).sampling) == {
        "temperature": 0
    }
    assert asked({"inputs": "hi", "parameters": {"stop": []}}) == Rendered(Prompt(text="hi"))


def test_messages_are_a_chat_request() -> None:
    read = asked({"messages": CHAT, "max_tokens": 5})
    assert (read.prompt.messages, dict(read.sampling)) == (tuple(CHAT), {"max_tokens": 5})


def test_any_other_object_and_a_row_of_csv_are_variables_of_the_prompt() -> None:
    assert asked({"name": "x"}) is None
    assert made().variables({"record": {"name": "x"}}) == {"name": "x"}
    assert asked(["a", "b"], content="csv") is None
    assert made(content="csv").variables({"record": ["a", "b"]}) == {"c0": "a", "c1": "b"}
    assert made(content="csv", input_filter="$[1]").variables({"record": ["a", "b"]}) == {"c0": "b"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (["a"], "of type array"),
        (3, "of type integer"),
        (None, "of type null"),
        ({"inputs": ["a"]}, "inputs must be one text, and is of type array"),
        ({"inputs": "a", "parameter": {}}, r"parameter is not supported \(did you mean 'parameters'\?\)"),
        ({"inputs": "a", "parameters": []}, "parameters must be an object, and is of type array"),
        ({"inputs": "a", "parameters": {"max_tokens": 1}}, "parameters.max_tokens is not supported"),
        (
            {"inputs": "a", "parameters": {"max_new_tokens": 0}},
            "parameters.max_new_tokens is 0, and must be at least 1",
        ),
        ({"inputs": "a", "parameters": {"best_of": 2}}, "parameters.best_of is not supported"),
        ({"inputs": "a", "parameters": {"details": 1}}, "parameters.details is true or false, and is 1"),
        ({"messages": []}, "body.messages: has no message"),
    ],
)
def test_what_cannot_be_done_is_said(record: Any, said: str) -> None:
    read = asked(record)
    assert isinstance(read, Failure)
    assert re.search(said, read.message), read.message


def test_a_filter_that_matches_nothing_is_a_failure_of_its_record() -> None:
    read = asked({"feature": 1}, input_filter="$.features")
    assert isinstance(read, Failure)
    assert read.message.startswith("the input filter $.features: there is no 'features' (did you mean 'feature'?)")
    with pytest.raises(Misfit, match=r"\$\.x: there is no 'x'"):
        written("a", {"output_filter": "$.x"})


def test_an_answer_is_written_as_its_record_s_container_gives_it() -> None:
    assert json.loads(written("a")) == {"generated_text": "out"}
    assert json.loads(written({"name": "x"})) == {"generated_text": "out"}
    assert json.loads(written({"name": "x"}, output={"n": 1})) == {"generated_text": '{"n": 1}'}
    assert json.loads(written("a", {"tgi_compat": True})) == [{"generated_text": "out"}]
    full = {"inputs": "in ", "parameters": {"return_full_text": True, "details": True}}
    assert json.loads(written(full)) == {
        "generated_text": "in out", "details": {"finish_reason": "eos_token", "generated_tokens": 2},
    }  # fmt: skip
    assert json.loads(written(full, finish_reason="length"))["details"]["finish_reason"] == "length"
    chat = json.loads(written({"messages": CHAT}, finish_reason="length"))
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": "out"}
    assert chat["choices"][0]["finish_reason"] == "length"


def test_the_record_is_joined_as_it_was_and_then_filtered() -> None:
    record = {"id": "a", "features": "x", "SageMakerOutput": "old"}
    options = {"input_filter": "$.features", "join": True}
    assert json.loads(written(record, options)) == {**record, "SageMakerOutput": {"generated_text": "out"}}
    picked = written(record, {**options, "output_filter": "$['id','SageMakerOutput']"})
    assert picked == '{"id":"a","SageMakerOutput":{"generated_text":"out"}}'
    assert json.loads(written("x", {"join": True})) == {
        "SageMakerInput": "x",
        "SageMakerOutput": {"generated_text": "out"},
    }
    assert written(record, {**options, "output_filter": "$.SageMakerOutput.generated_text"}) == '"out"'


def test_csv_is_written_as_csv() -> None:
    assert written(["a", "b"], {"content": "csv"}) == "out"
    assert written(["a", "b"], {"content": "csv"}, output='1, "2"') == '"1, ""2"""'
    assert written(["a", "b"], {"content": "csv", "join": True}) == "a,b,out"
    assert written(["a", "b"], {"content": "csv", "join": True, "output_filter": "$[0,-1]"}) == "a,out"


def test_an_answer_that_does_not_pass_the_check_of_its_request_is_one_unless_strict() -> None:
    chat = {"messages": CHAT, "response_format": {"type": "json_object"}}
    error = {"kind": "invalid_json", "message": "no JSON"}
    row = answered(chat, "invalid", None, raw="hm", error=error)
    assert outcome(row) == Success("hm", "stop")
    assert outcome(row, strict=True) == Error("invalid_json", "no JSON")
    assert outcome(answered("a", "invalid", None, raw="hm", error=error)) == Error("invalid_json", "no JSON")
    assert isinstance(outcome(answered(..., "failed", None, error=error)), Error)


def test_a_placeholder_stands_where_the_answer_would() -> None:
    assert made().placeholder(answered("a"), "ERROR") == "ERROR"
    assert made(join=True).placeholder(answered({"id": 1}), "ERROR") == '{"id":1,"SageMakerOutput":"ERROR"}'
    assert made(join=True).placeholder(answered(...), "ERROR") == "ERROR"
    assert made(join=True, output_filter="$.x").placeholder(answered({"id": 1}), "ERROR") == "ERROR"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_filter": "x"}, r"the filter 'x' does not begin with \$"),
        ({"content": "csv", "input_filter": "$.a"}, "is for rows of CSV, and can have indices and slices alone"),
        ({"content": "csv", "join": True, "accept": "json"}, "accept must be of the same kind as content"),
        ({"output_filter": "$.a", "accept": "csv"}, "accept must be of the same kind as content"),
        ({"content": "csv", "split": "none"}, "split is line for them"),
        ({"joined": True}, "the settings of sagemaker are content, split, input_filter"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        made(**options)


@pytest.mark.parametrize("record", [{"inputs": "hi", "parameters": {"max_new_tokens": 3}}, {"messages": CHAT}])
def test_what_is_written_is_read_back(record: Any) -> None:
    read = asked(record)
    assert asked(made().write(0, read, None)) == read
