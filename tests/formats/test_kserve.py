from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.types import Constraint
from llmbatch.formats import kserve
from llmbatch.formats.kserve import Answer, Model, Tensor, WireError
from llmbatch.formats.kserve_dialects import (
    DIALECTS,
    Unsayable,
    dialect_of,
    logprobs_of,
    repeats_prompt,
    sent,
    unfilled,
)

# as a real Triton 2.51 told and answered it
METADATA = {
    "name": "vllm_model",
    "versions": ["1"],
    "platform": "python",
    "inputs": [
        {"name": "text_input", "datatype": "BYTES", "shape": [1]},
        {"name": "stream", "datatype": "BOOL", "shape": [1]},
        {"name": "sampling_parameters", "datatype": "BYTES", "shape": [1]},
        {"name": "exclude_input_in_output", "datatype": "BOOL", "shape": [1]},
        {"name": "return_finish_reason", "datatype": "BOOL", "shape": [1]},
    ],
    "outputs": [
        {"name": "text_output", "datatype": "BYTES", "shape": [-1]},
        {"name": "finish_reason", "datatype": "BYTES", "shape": [-1]},
    ],
}
ANSWER = {
    "id": "row-0",
    "model_name": "vllm_model",
    "model_version": "1",
    "outputs": [
        {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["one loaf of rye"]},
        {"name": "finish_reason", "datatype": "BYTES", "shape": [1], "data": ["stop"]},
        {"name": "num_input_tokens", "datatype": "UINT32", "shape": [1], "data": [4]},
        {"name": "num_output_tokens", "datatype": "UINT32", "shape": [1], "data": [4]},
    ],
}
VLLM = kserve.read_model(METADATA, {"max_batch_size": 0})


def model_with(*inputs: tuple[str, str, list[int]], most: int = 0) -> Model:
    return Model("m", inputs={name: Tensor(name, kind, tuple(shape)) for name, kind, shape in inputs}, most=most)


ENSEMBLE = model_with(
    ("text_input", "BYTES", [-1, 1]),
    ("max_tokens", "INT32", [-1, 1]),
    ("bad_words", "BYTES", [-1, -1]),
    ("stop_words", "BYTES", [-1, -1]),
    ("temperature", "FP32", [-1, 1]),
    ("top_k", "INT32", [-1, 1]),
    ("seed", "UINT64", [-1, 1]),
    ("guided_decoding_guide_type", "BYTES", [-1, 1]),
    ("guided_decoding_guide", "BYTES", [-1, 1]),
    most=8,
)
LLMAPI = model_with(
    ("text_input", "BYTES", [-1]), ("sampling_param_max_tokens", "INT32", [1]), ("sampling_param_stop", "BYTES", [-1])
)
UNTOLD = Model("echo")


def test_a_request_is_written_as_the_servers_of_triton_take_it() -> None:
    told = sent(DIALECTS["triton-vllm"], VLLM, {"temperature": 0, "max_tokens": 8})
    body = kserve.infer_body(
        VLLM, [{"text_input": "one loaf of rye", **told.tensors}], request_id="row-0", parameters={}
    )
    assert {each["name"]: (each["shape"], each["datatype"], each["data"]) for each in body["inputs"]} == {
        "text_input": ([1], "BYTES", ["one loaf of rye"]),
        "sampling_parameters": ([1], "BYTES", ['{"temperature": 0, "max_tokens": 8}']),
        "exclude_input_in_output": ([1], "BOOL", [True]),
        "return_finish_reason": ([1], "BOOL", [True]),
    }


def test_rows_of_a_batch_have_a_row_each_in_every_tensor() -> None:
    rows = [{"text_input": text, "max_tokens": most, "stop_words": ["x", "y"]} for text, most in (("a", 5), ("b", 6))]
    body = kserve.infer_body(ENSEMBLE, rows, request_id="1", parameters={}, outputs=["text_output"])
    assert body["outputs"] == [{"name": "text_output"}]
    assert [(each["name"], each["shape"], each["data"]) for each in body["inputs"]] == [
        ("text_input", [2, 1], ["a", "b"]),
        ("max_tokens", [2, 1], [5, 6]),
        ("stop_words", [2, 2], ["x", "y", "x", "y"]),
    ]


def test_what_a_server_does_not_tell_of_is_written_by_its_value() -> None:
    body = kserve.infer_body(UNTOLD, [{"text_input": "a"}], request_id="1", parameters={"stop": ["x"], "top_p": 0.5})
    assert body["inputs"] == [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}]
    assert body["parameters"] == {"stop": '["x"]', "top_p": 0.5}


@pytest.mark.parametrize(
    ("datatype", "value", "written"),
    [("FP32", 1, 1.0), ("INT32", 5.0, 5), ("BOOL", True, True), ("UINT64", 7, 7)],
)
def test_a_value_is_written_in_its_tensors_type(datatype: str, value: Any, written: Any) -> None:
    body = kserve.generate_body(model_with(("x", datatype, [1])), {"x": value}, parameters={})
    assert body == {"x": written}
    assert type(body["x"]) is type(written)


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT32", 0.5), ("UINT64", -1), ("BOOL", 1), ("BYTES", 5), ("FP32", "hot"), ("INT32", True)]
)
def test_a_value_that_its_tensor_cannot_hold_is_no_request(datatype: str, value: Any) -> None:
    with pytest.raises(WireError, match="input x is"):
        kserve.infer_body(model_with(("x", datatype, [1])), [{"x": value}], request_id="1", parameters={})


def test_an_answer_has_its_text_its_end_and_its_tokens() -> None:
    assert kserve.read_infer(ANSWER, 1, "text_output") == [Answer("one loaf of rye", "stop", 4, 4)]


def test_of_a_batch_each_row_has_its_own_answer() -> None:
    body = {
        "outputs": [{"name": "text_output", "shape": [2, 2], "datatype": "BYTES", "data": [["a", "a2"], ["b", "b2"]]}]
    }
    assert kserve.read_infer(body, 2, "text_output") == [Answer("a"), Answer("b")]


def test_a_generate_answer_is_one_object() -> None:
    body = {"model_name": "m", "text_output": "hi", "finish_reason": "length", "num_output_tokens": 2}
    assert kserve.read_generate(body, "text_output") == Answer("hi", "length", None, 2)
    assert kserve.read_generate({"text_output": ["hi", "ho"]}, "text_output") == Answer("hi")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "no outputs"),
        ({"error": "x"}, "no outputs"),
        ({"outputs": [{"name": "other", "data": ["a"]}]}, "no output 'text_output', but other"),
        ({"outputs": [{"name": "text_output", "data": ["a", "b", "c"]}]}, "3 values for 2 rows"),
        ({"outputs": [{"name": "text_output", "data": []}]}, "0 values for 2 rows"),
        ({"outputs": [{"name": "text_output", "data": [1, 2]}]}, "must hold text"),
    ],
    ids=["no-object", "an-error", "another-output", "too-many", "none", "numbers"],
)
def test_what_is_no_answer_says_so(body: Any, said: str) -> None:
    with pytest.raises(WireError, match=said):
        kserve.read_infer(body, 2, "text_output")


def test_a_model_tells_its_inputs_and_whether_it_takes_batches() -> None:
    assert VLLM.inputs["stream"] == Tensor("stream", "BOOL", (1,))
    assert (VLLM.most, VLLM.decoupled) == (0, False)
    told = kserve.read_model(METADATA, {"max_batch_size": 8, "model_transaction_policy": {"decoupled": True}})
    assert (told.most, told.decoupled) == (8, True)
    assert kserve.read_model({"name": "echo", "versions": [], "inputs": [], "outputs": []}) == UNTOLD


def test_the_prompts_input_is_found_where_there_is_one_that_may_be_it() -> None:
    assert VLLM.prompt_input(None) == "text_input"
    assert model_with(("QUERY", "BYTES", [1]), ("n", "INT32", [1])).prompt_input(None) == "QUERY"
    assert UNTOLD.prompt_input("words") == "words"
    with pytest.raises(WireError, match=r"no one text input: engine.input names one of a \(BYTES\), b \(BYTES\)"):
        model_with(("a", "BYTES", [1]), ("b", "BYTES", [1])).prompt_input(None)
    with pytest.raises(WireError, match="no words input"):
        VLLM.prompt_input("words")


@pytest.mark.parametrize(
    ("body", "said"),
    [({"error": "no"}, "no"), ({"detail": [{"msg": "x"}]}, '[{"msg": "x"}]'), ({"outputs": []}, None), ("no", None)],
    ids=["triton", "mlserver", "none", "text"],
)
def test_an_error_is_read_from_its_body(body: Any, said: str | None) -> None:
    assert kserve.error_of(body) == said


@pytest.mark.parametrize(
    ("model", "dialect"),
    [(VLLM, "triton-vllm"), (LLMAPI, "trtllm-llmapi"), (ENSEMBLE, "trtllm-ensemble"), (UNTOLD, "plain")],
)
def test_a_models_inputs_tell_its_dialect(model: Model, dialect: str) -> None:
    assert dialect_of(model) == dialect


def test_sampling_goes_to_the_inputs_that_the_dialect_has_for_it() -> None:
    settings = {"max_tokens": 5, "stop": ("a", "b"), "n": 2, "seed": -1}
    assert sent(DIALECTS["trtllm-ensemble"], ENSEMBLE, {**settings, "temperature": 0}).tensors == {
        "max_tokens": 5,
        "stop_words": ("a", "b"),
        "top_k": 1,
    }
    assert sent(DIALECTS["trtllm-llmapi"], LLMAPI, settings).tensors == {
        "sampling_param_max_tokens": 5,
        "sampling_param_stop": ("a", "b"),
    }
    assert sent(DIALECTS["plain"], UNTOLD, settings) == ({}, {"max_tokens": 5, "stop": ("a", "b")})
    assert sent(DIALECTS["plain"], UNTOLD, {"max_tokens": 5}, names={"max_tokens": "length"}).parameters == {
        "length": 5
    }


def test_a_setting_without_a_place_is_refused_and_not_dropped() -> None:
    with pytest.raises(
        Unsayable, match=r"no input sampling_param_min_p, which sampling.min_p would go to; it has text_input"
    ):
        sent(DIALECTS["trtllm-llmapi"], LLMAPI, {"min_p": 0.1})
    with pytest.raises(Unsayable, match="takes no adapter"):
        sent(DIALECTS["plain"], UNTOLD, {}, adapter="legal")
    with pytest.raises(Unsayable, match="log-probabilities"):
        sent(DIALECTS["triton-vllm"], VLLM, {"logprobs": 2})


def test_what_an_answer_is_held_to_is_said_as_the_dialect_says_it() -> None:
    choice = Constraint("choice", '["a.b", "c"]')
    told = sent(DIALECTS["trtllm-ensemble"], ENSEMBLE, {}, constraint=choice).tensors
    assert told == {"guided_decoding_guide_type": "regex", "guided_decoding_guide": r"(a\.b|c)"}
    told = sent(DIALECTS["triton-vllm"], VLLM, {}, constraint=Constraint("json", '{"type": "object"}')).tensors
    guided = json.loads(json.loads(told["sampling_parameters"])["guided_decoding"])
    assert guided == {"json": {"type": "object"}}
    assert sent(DIALECTS["plain"], UNTOLD, {}, constraint=choice) == ({}, {})


def test_what_an_older_model_requires_is_filled_with_what_says_nothing() -> None:
    config = {"input": [{"name": "text_input", "optional": False}, {"name": "stop_words", "optional": False}]}
    older = replace(ENSEMBLE, required=kserve.read_model(METADATA, config).required)
    assert sent(DIALECTS["trtllm-ensemble"], older, {"max_tokens": 5}).tensors == {"stop_words": [""], "max_tokens": 5}
    assert sent(DIALECTS["trtllm-ensemble"], older, {"stop": "x"}).tensors == {"stop_words": ["x"]}


def test_what_nothing_fills_is_told() -> None:
    model = replace(UNTOLD, required=frozenset({"text_input", "max_tokens", "language", "length"}))
    assert unfilled(DIALECTS["plain"], model, ["text_input"], {"min_tokens": "length"}) == ["language"]
    assert unfilled(DIALECTS["plain"], model, ["text_input", "language"], {"min_tokens": "length"}) == []
    assert sent(DIALECTS["plain"], model, {}, values={"language": "en"}).tensors == {"language": "en"}


def test_an_adapter_is_named_to_vllm() -> None:
    told = sent(DIALECTS["triton-vllm"], VLLM, {}, adapter="legal").tensors
    assert json.loads(told["sampling_parameters"]) == {"lora_name": "legal"}


def test_an_answer_begins_with_the_prompt_where_no_input_can_switch_that_off() -> None:
    assert repeats_prompt(DIALECTS["trtllm-llmapi"], LLMAPI)
    assert not repeats_prompt(DIALECTS["triton-vllm"], VLLM)
    assert not repeats_prompt(DIALECTS["plain"], UNTOLD)


def test_log_probabilities_of_the_vllm_backend_are_read_token_by_token() -> None:
    place = {
        "7": {"logprob": -0.5, "rank": 2, "decoded_token": "b"},
        "3": {"logprob": -0.1, "rank": 1, "decoded_token": "a"},
    }
    assert logprobs_of(json.dumps([place])) == [
        {"token": "b", "logprob": -0.5, "top": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.5}]}
    ]
    assert logprobs_of("null") is None
    assert logprobs_of(None) is None


def test_a_server_reads_what_a_client_writes_and_a_client_what_a_server_answers() -> None:
    rows = [{"text_input": "a"}, {"text_input": "b"}]
    asked = kserve.read_request(kserve.infer_body(UNTOLD, rows, request_id="x", parameters={"max_tokens": 5}))
    assert (asked.id, asked.prompts, asked.values, asked.shape) == ("x", ("a", "b"), {"max_tokens": 5}, (2, 1))
    answers = [Answer("A", "stop", 1, 1), Answer("B", "length", 1, 2)]
    body = kserve.written_answers("echo", asked, answers)
    assert body["id"] == "x"
    assert kserve.read_infer(body, 2, "text_output") == answers


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "list of inputs"),
        ({"inputs": []}, "list of inputs"),
        ({"inputs": [{"wrong": 1}]}, "no name and no shape"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}]}, "no input holds the prompt"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [1]}]}, "must hold texts"),
    ],
    ids=["no-object", "no-inputs", "no-tensor", "no-text", "a-number"],
)
def test_a_request_that_is_none_is_refused_in_words(body: Any, said: str) -> None:
    with pytest.raises(WireError, match=said):
        kserve.read_request(body)
