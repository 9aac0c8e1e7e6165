from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Failure, Prompt, Rendered
from llmbatch.formats.base import wire_format

FORMAT = wire_format("openai")

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}),
    min_size=1,
    max_size=3,
).map(tuple)
PROMPTS = st.builds(Prompt, messages=MESSAGES, prefill=st.just("") | TEXT) | st.builds(Prompt, text=TEXT)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 4096),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.1, 1),
        "top_k": st.integers(1, 100),
        "seed": st.integers(0, 2**31),
        "n": st.integers(1, 4),
        "stop": st.lists(TEXT, min_size=1, max_size=2),
        "logprobs": st.integers(0, 5),
        "logit_bias": st.dictionaries(st.integers(0, 9), st.floats(-2, 2), min_size=1, max_size=2),
        "min_tokens": st.integers(0, 9),
        "ignore_eos": st.booleans(),
        "bad_words": st.lists(TEXT, min_size=1, max_size=2),
    },
)
OUTPUTS = st.none() | st.sampled_from(
    [{"schema": {"type": "object"}}, {"choice": ["a", "b"]}, {"regex": "[ab]+"}, {"grammar": 'root ::= "a"'}]
)


def line_of(prompt: Prompt, sampling: dict[str, Any], output: dict[str, Any] | None) -> dict[str, Any]:
    line = FORMAT.write("id-5", Rendered(prompt, sampling, output), "m")
    return json.loads(json.dumps(line))  # type: ignore[no-any-return]


@given(PROMPTS, SAMPLING, OUTPUTS)
def test_a_line_reads_back_as_the_same_request(
    prompt: Prompt, sampling: dict[str, Any], output: dict[str, Any] | None
) -> None:
    line = line_of(prompt, sampling, output)
    back = FORMAT.read(line, ())
    assert line["custom_id"] == "id-5"
    assert isinstance(back, Rendered)
    assert back.prompt == prompt
    assert back.sampling == sampling
    assert back.output == output


@pytest.mark.vllm
@pytest.mark.parametrize(
    "output",
    [None, {"schema": {"type": "object"}}, {"choice": ["a", "b"]}, {"regex": "[ab]+"}, {"grammar": 'root ::= "a"'}],
)
def test_vllm_s_run_batch_reads_a_line_as_the_same_sampling(output: dict[str, Any] | None) -> None:
    from vllm.entrypoints.launchers.run_batch import BatchRequestInput

    prompt = Prompt(messages=({"role": "system", "content": "s"}, {"role": "user", "content": "u"}), prefill="{")
    sampling = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 3,
        "seed": 1,
        "logprobs": 2,
        "logit_bias": {7: -1.0},
        "stop": ["x"],
    }
    request = BatchRequestInput.model_validate_json(json.dumps(line_of(prompt, sampling, output)))
    body = request.body
    assert request.custom_id == "id-5"
    assert not body.model_extra
    assert [message["role"] for message in body.messages] == ["system", "user", "assistant"]
    assert body.continue_final_message
    params = body.to_sampling_params(body.max_completion_tokens, {})
    assert (params.max_tokens, params.temperature, params.top_k, params.seed) == (7, 0.5, 3, 1)
    assert (params.logprobs, params.logit_bias, params.stop) == (2, {7: -1.0}, ["x"])
    constraint = params.structured_outputs
    if output is None:
        assert constraint is None
    else:
        ((kind, value),) = output.items()
        assert getattr(constraint, "json" if kind == "schema" else kind) == value


def test_an_adapter_goes_before_the_model() -> None:
    line = FORMAT.write(17, Rendered(Prompt(text="x"), output={"regex": "a"}, lora="poet"), "m")
    assert line["custom_id"] == "17"
    assert line["body"] == {"model": "poet", "prompt": "x", "structured_outputs": {"regex": "a"}}


def test_without_a_model_none_is_named() -> None:
    assert "model" not in FORMAT.write(0, Rendered(Prompt(text="x")), None)["body"]


def test_a_format_that_is_unknown_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(SourceError, match="unknown wire format 'telex': known are requests, openai"):
        wire_format("telex")


def embedding(**body: Any) -> Any:
    return wire_format("openai").read({"custom_id": "a", "url": "/v1/embeddings", "body": body}, ())


def test_a_request_for_an_embedding_reads_back_as_the_same() -> None:
    for prompt in (Prompt(text="one"), Prompt(messages=({"role": "user", "content": "one"},))):
        line = wire_format("openai").write("a", Rendered(prompt, vector=True), "m")
        assert line["url"] == "/v1/embeddings"
        assert wire_format("openai").read(line, ()) == Rendered(prompt, vector=True)
    assert embedding(input=["one"], encoding_format="float", user="me") == Rendered(Prompt(text="one"), vector=True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": ["a", 1]}, "must be one text, or token ids, or a list"),
        ({"input": []}, "must be one text, or token ids, or a list"),
        ({"input": ["a"] * 2049}, "2,049 of them"),
        ({"input": ["a", ""]}, "a text that is blank"),
        ({"input": " "}, "blank"),
        ({}, "neither"),
        ({"input": "a", "dimensions": 0}, "body.dimensions is 0"),
        ({"input": "a", "encoding_format": "int8"}, "must be float or base64"),
        ({"input": "a", "temperature": 1}, "body.temperature is not supported"),
    ],
    ids=str,
)
def test_what_an_embedding_cannot_be_asked_with_is_the_row_s_failure(body: dict[str, Any], said: str) -> None:
    failure = embedding(**body)
    assert isinstance(failure, Failure)
    assert said in failure.message
