from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.v2 import line_of

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0}


def text_input(*texts: str, shape: Any = None) -> dict[str, Any]:
    return {"name": "text_input", "shape": shape or [len(texts), 1], "datatype": "BYTES", "data": list(texts)}


def tensor(name: str, value: Any, datatype: str = "BYTES") -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


def read(*inputs: Any, chat: bool = False, **more: Any) -> Any:
    return wire_format("v2", {"chat": chat}).read({"inputs": list(inputs), **more}, ("poet",))


def test_several_values_are_several_prompts() -> None:
    assert read(text_input("a", "b")) == Rendered(Prompt(text="a"), {}, more=(Prompt(text="b"),))


def test_a_text_may_be_a_message() -> None:
    assert read(text_input("a"), chat=True) == Rendered(Prompt(messages=({"role": "user", "content": "a"},)), {})


def test_parameters_and_the_settings_as_json_text_are_sampling() -> None:
    said = json.dumps(
        {"temperature": 0, "lora_name": "poet", "guided_decoding": json.dumps({"json": {"type": "object"}})}
    )
    found = read(
        text_input("a"),
        tensor("sampling_parameters", said),
        tensor("stream", value=False, datatype="BOOL"),
        tensor("exclude_input_in_output", value=True, datatype="BOOL"),
        parameters={
            "max_tokens": 7,
            "content_type": "str",
            "binary_data_output": True,
            "stop_token_ids": "[1, 2]",
            "logit_bias": '{"5": -1}',
        },
        outputs=[{"name": "text_output"}],
    )
    sampling = {"temperature": 0, "max_tokens": 7, "stop_token_ids": [1, 2], "logit_bias": {5: -1.0}}
    assert found == Rendered(Prompt(text="a"), sampling, {"schema": {"type": "object"}}, "poet")


@pytest.mark.parametrize(
    "rendered",
    [
        Rendered(
            Prompt(text="a"), {"max_tokens": 3, "stop": ["x"], "logit_bias": {5: -1.0}}, {"choice": ["a", "b"]}, "poet"
        ),
        Rendered(Prompt(text="a"), {}, more=(Prompt(text="b"),)),
    ],
)
def test_a_line_reads_back_as_the_same_request(rendered: Rendered) -> None:
    line = json.loads(json.dumps(wire_format("v2").write("r1", rendered, "m")))
    assert line["id"] == "r1"
    assert wire_format("v2").read(line, ("poet",)) == rendered


@pytest.mark.parametrize(
    ("inputs", "more", "said"),
    [
        ([], {}, "a request has a list of inputs"),
        ([{"name": "x"}], {}, "an input has no shape and no datatype and no data"),
        ([{"name": [1], "shape": [1], "datatype": "BYTES", "data": ["a"]}], {}, "the name of an input is a text"),
        ([tensor("x", 1, "INT32")], {}, "no input holds the prompt"),
        ([text_input("a", "b", shape=[1, 1])], {}, "has the shape [1, 1], and data of 2 values"),
        ([text_input("a", shape="x")], {}, "has the shape 'x'"),
        ([text_input("a")], {"parameters": [1]}, "parameters are an object"),
        ([text_input("a")], {"outputs": 1}, "outputs are a list"),
        (
            [text_input("a")],
            {"parameters": {"temprature": 0}},
            "temprature is not supported (did you mean 'temperature'?)",
        ),
        ([text_input("a")], {"parameters": {"temperature": "hot"}}, "temperature is of type string"),
        ([text_input("a")], {"parameters": {"n": 2}}, "n = 2 is not supported"),
        ([text_input("a")], {"parameters": {"logprobs": 2}}, "logprobs is not supported"),
        ([text_input("a")], {"parameters": {"stop_token_ids": "[1"}}, "stop_token_ids is JSON text"),
        ([text_input("a")], {"parameters": {"lora_name": "x"}}, "there is no adapter 'x': engine.lora has poet"),
        ([text_input("a")], {"parameters": {"guided_decoding": "{}"}}, "guided_decoding has one of json"),
        ([text_input("a")], {"parameters": {"guided_decoding": '{"regex": 5}'}}, "guided_decoding.regex is of type"),
        ([text_input("a"), tensor("sampling_parameters", "{")], {}, "sampling_parameters is JSON text"),
        ([text_input("a"), tensor("sampling_parameters", "[]")], {}, "of an object, and this is of type array"),
        ([text_input("a"), tensor("exclude_input_in_output", False, "BOOL")], {}, "exclude_input_in_output = False"),
        ([text_input("a", "b"), tensor("return_finish_reason", True, "BOOL")], {}, "are for one prompt a line"),
        ([text_input("a")], {"outputs": [{"name": "logits"}]}, "there is no output 'logits'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_the_row_s_failure(inputs: Any, more: Any, said: str) -> None:
    found = read(*inputs, **more)
    assert isinstance(found, Failure)
    assert said in found.message


def test_a_blank_prompt_is_a_failure_of_its_kind() -> None:
    assert read(text_input(" ")).kind is FailureKind.EMPTY_PROMPT


def test_a_line_without_inputs_is_no_request() -> None:
    assert "has no list of inputs" in (wire_format("v2").problem({"id": "a"}) or "")


def answered(row: dict[str, Any], output: Any, samples: int = 1, **record: Any) -> Answered:
    told = {"id": "a", "index": 1, "status": "ok", "output": output, "finish_reason": "stop", "usage": USAGE, **record}
    asked = wire_format("v2").read(row, ())
    held = isinstance(asked, Rendered) and asked.output is not None
    return Answered(told, row, Asked(chat=False, samples=samples, own_check=held), "demo", 5, 4)


def test_several_prompts_are_answered_in_their_shape() -> None:
    row = {"id": "a", "inputs": [text_input("x", "y", shape=[2])]}
    line = line_of(answered(row, ["X", "Y"], 2), strict=False)
    assert line["parameters"] == {"batch_index": 4, "inference_id": "a"}
    [output] = line["outputs"]
    assert (output["shape"], output["data"]) == ([2], ["X", "Y"])


def test_outputs_that_are_asked_for_are_there() -> None:
    row = {
        "inputs": [
            text_input("x"),
            *(tensor(f"return_{n}", True, "BOOL") for n in ("finish_reason", "num_output_tokens")),
        ]
    }
    line = line_of(answered(row, "X"), strict=False)
    assert [(o["name"], o["data"]) for o in line["outputs"]] == [
        ("text_output", ["X"]),
        ("finish_reason", ["stop"]),
        ("num_output_tokens", [2]),
    ]


def test_a_request_without_an_id_gets_the_same_one_each_time() -> None:
    row = {"inputs": [text_input("x")]}
    one, other = (line_of(answered(row, "X"), strict=False) for _ in range(2))
    assert one == other
    assert one["id"] == one["parameters"]["inference_id"] != ""


def test_an_error_has_its_id_only_where_that_is_asked_for() -> None:
    row = {"id": "a", "inputs": [text_input("x")]}
    failed = answered(row, None, status="failed", error={"kind": "engine", "message": "no"})
    assert line_of(failed, strict=False) == {
        "parameters": {"batch_index": 4},
        "error": {"status": "preprocessing error", "msg": "no"},
    }
    assert line_of(failed, strict=False, ids=True)["id"] == "a"


def test_a_check_of_the_request_s_own_is_an_error_where_that_is_asked_for() -> None:
    row = {"inputs": [text_input("x")], "parameters": {"guided_decoding": '{"json": {"type": "object"}}'}}
    wrong = answered(row, None, status="invalid", raw="{", error={"kind": "invalid_json", "message": "no"})
    assert line_of(wrong, strict=False)["outputs"][0]["data"] == ["{"]
    assert "error" in line_of(wrong, strict=True)
