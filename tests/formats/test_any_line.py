"""Whatever JSON a line holds, reading it gives what is asked or a failure, and never raises."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Failure, Rendered
from llmbatch.formats.base import RECORD, wire_format

SCALARS = st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
SETTINGS = st.sampled_from(
    [
        "temperature",
        "max_tokens",
        "n",
        "stop",
        "logit_bias",
        "logprobs",
        "guided_json",
        "response_format",
        "echo",
        "tools",
    ]
)


def objects(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the keys, a setting or two, and any values."""
    known = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, VALUES))
    return st.builds(lambda one, more: {**one, **more}, known, st.dictionaries(SETTINGS, VALUES, max_size=2))


def assert_read(format_: str, line: dict[str, Any], **options: Any) -> None:
    made = wire_format(format_, options)
    if made.problem(line) is None:
        assert isinstance(made.read(line, frozenset({"poet"})), Rendered | Failure)


@given(
    st.sampled_from(["/v1/chat/completions", "/completions", "/v1/embeddings", "/v1/responses", "/v1/x", 5]),
    objects("model", "messages", "prompt", "input", "instructions", "text", "dimensions", "max_output_tokens") | VALUES,
)
def test_openai(url: Any, body: Any) -> None:
    assert_read("openai", {"custom_id": "a", "method": "POST", "url": url, "body": body})


@given(
    objects("parameters", "id", "outputs"),
    st.lists(objects("name", "shape", "datatype", "data") | VALUES, max_size=2),
    st.sampled_from(["text_input", "sampling_parameters", "stream", "guided_decoding"]),
    VALUES,
)
def test_v2(line: dict[str, Any], inputs: list[Any], name: str, value: Any) -> None:
    prompt = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    assert_read("v2", {**line, "inputs": inputs})
    assert_read(
        "v2", {**line, "inputs": [prompt, {"name": name, "shape": [1], "datatype": "BYTES", "data": value}, *inputs]}
    )
    assert_read("v2", {"inputs": [prompt], "parameters": {name: value, **line}})


@given(
    st.sampled_from(["data", "json", "str", "raw"]),
    VALUES | objects("data", "strData", "jsonData", "meta", "prompt"),
    VALUES,
)
def test_seldon(data_type: str, record: Any, content: Any) -> None:
    assert_read("seldon", {RECORD: record}, data_type=data_type)
    assert_read("seldon", {RECORD: {"data": {"ndarray": content}}}, data_type="raw")


@given(objects("task_id", "prompt", "input_ids", "logits", "turns", "lora_request", "media_paths"), VALUES)
def test_trtllm_bench(line: dict[str, Any], tokens: Any) -> None:
    assert_read("trtllm_bench", {"output_tokens": 4, **line})
    assert_read("trtllm_bench", {**line, "prompt": "a", "output_tokens": tokens})
