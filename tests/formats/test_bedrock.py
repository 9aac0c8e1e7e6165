from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.bedrock import FAMILIES
from llmbatch.formats.bedrock.format import Bedrock, provider_of

BODIES = Path(__file__).parents[1] / "examples" / "aws" / "bedrock" / "bodies.jsonl"
BODY = {entry["family"]: entry["modelInput"] for entry in map(json.loads, BODIES.read_text().splitlines())}
BODY |= {
    "cohere": {"prompt": "one loaf of rye", "max_tokens": 64, "p": 0.9, "k": 5},
    "ai21": {"prompt": "one loaf of rye", "maxTokens": 64, "topP": 0.9},
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0}
SHAPES: dict[str, Any] = {
    "anthropic": {
        "id": "msg_000000000007", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "out"}], "stop_reason": "?", "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    },
    "meta": {"generation": "out", "prompt_token_count": 3, "generation_token_count": 2, "stop_reason": "?"},
    "titan": {"inputTextTokenCount": 3, "results": [{"tokenCount": 2, "outputText": "out", "completionReason": "?"}]},
    "mistral": {"outputs": [{"text": "out", "stop_reason": "?"}]},
    "converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": "out"}]}}, "stopReason": "?",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, "metrics": {"latencyMs": 0},
    },
    "cohere": {"generations": [{"text": "out", "finish_reason": "?"}]},
    "ai21": {"completions": [{"data": {"text": "out"}, "finishReason": {"reason": "?"}}]},
}  # fmt: skip
REASONS = {
    "anthropic": ("end_turn", "max_tokens"), "meta": ("stop", "length"), "titan": ("FINISH", "LENGTH"),
    "mistral": ("stop", "length"), "converse": ("end_turn", "max_tokens"), "cohere": ("COMPLETE", "MAX_TOKENS"),
    "ai21": ("endoftext", "length"),
}  # fmt: skip


def made(**options: Any) -> Bedrock:
    format_ = wire_format("bedrock", options)
    assert isinstance(format_, Bedrock)
    return format_


def read(body: Any, **options: Any) -> Any:
    return made(**options).read({"recordId": "r", "modelInput": body}, ())


def line(body: Any, options: Any = None, strict: bool = False, **fields: Any) -> dict[str, Any]:
    record = {"id": "r", "index": 7, "status": "ok", "output": "out", "finish_reason": "stop", "usage": USAGE, **fields}
    row = {} if body is ... else {"recordId": "r", "modelInput": body}
    asked = made(**(options or {})).read(row, ()) if row else None
    how = Asked(own_check=isinstance(asked, Rendered) and asked.output is not None)
    return made(**(options or {})).line(Answered(record, row, how, "m", 1_700_000_000), strict=strict)


@pytest.mark.parametrize("family", sorted(BODY))
def test_a_body_of_each_family_is_read_by_its_keys(family: str) -> None:
    asked = read(BODY[family])
    assert isinstance(asked, Rendered), asked
    said = asked.prompt.messages[-1]["content"] if asked.prompt.messages else asked.prompt.text
    assert said == "one loaf of rye"
    assert asked.sampling["max_tokens"] == 64


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("family", sorted(SHAPES))
def test_an_answer_has_the_shape_of_its_family_and_says_whether_it_was_cut_off(family: str, cut: bool) -> None:
    reason = REASONS[family][cut]
    wanted = json.loads(json.dumps(SHAPES[family]).replace('"?"', json.dumps(reason)))
    written = line(BODY[family], finish_reason="length" if cut else "stop")
    assert written == {"recordId": "r", "modelInput": BODY[family], "modelOutput": wanted}


def test_a_chat_body_gets_a_chat_completion() -> None:
    output = line(BODY["openai"], {"model": "openai.gpt-oss-20b-1:0"}, finish_reason="length")["modelOutput"]
    assert (output["object"], output["model"]) == ("chat.completion", "openai.gpt-oss-20b-1:0")
    assert output["choices"][0]["finish_reason"] == "length"
    assert output["choices"][0]["message"]["content"] == "out"


def test_system_texts_and_blocks_become_messages() -> None:
    body = {
        "anthropic_version": "x", "max_tokens": 5, "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        "stop_sequences": ["x"], "top_k": 3,
    }  # fmt: skip
    asked = read(body)
    assert asked.prompt.messages == ({"role": "system", "content": "Be\nbrief."}, {"role": "user", "content": "a\nb"})
    assert dict(asked.sampling) == {"max_tokens": 5, "stop": ["x"], "top_k": 3}


def test_a_last_message_of_the_assistant_s_is_the_start_of_the_answer_and_not_in_it() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "So, "}]
    body = {"anthropic_version": "x", "max_tokens": 5, "messages": messages}
    assert read(body).prompt.prefill == "So, "
    assert line(body, output="So, out")["modelOutput"]["content"] == [{"type": "text", "text": "out"}]


def test_a_schema_of_converse_holds_the_answer() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    form = {"type": "json_schema", "structure": {"jsonSchema": {"name": "n", "schema": json.dumps(schema)}}}
    body = {**BODY["converse"], "outputConfig": {"textFormat": form}}
    assert read(body).output == {"schema": schema}
    assert line(body, output={"n": 1})["modelOutput"]["output"]["message"]["content"] == [{"text": '{"n": 1}'}]
    wrong = {"status": "invalid", "output": None, "raw": "hm", "error": {"kind": "schema", "message": "no"}}
    assert line(body, **wrong)["modelOutput"]["output"]["message"]["content"] == [{"text": "hm"}]
    assert line(body, strict=True, **wrong)["error"] == {"errorCode": 422, "errorMessage": "no"}


def test_a_row_that_failed_has_an_error_in_place_of_its_output() -> None:
    error = {"status": "failed", "output": None, "error": {"kind": "engine_died", "message": "gone"}}
    assert line(BODY["meta"], **error) == {
        "recordId": "r", "modelInput": BODY["meta"], "error": {"errorCode": 503, "errorMessage": "gone"},
    }  # fmt: skip
    error["error"] = {"kind": "malformed_row", "message": "not JSON"}
    assert line(..., **error) == {
        "recordId": "REC00000007", "modelInput": None, "error": {"errorCode": 400, "errorMessage": "not JSON"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "options", "said"),
    [
        ({"anthropic_version": "x", "max_tokens": 5}, {}, "modelInput.messages is missing"),
        ({"anthropic_version": "x", "messages": [{"role": "user", "content": "a"}]}, {}, "modelInput.max_tokens is missing"),
        ({**BODY["anthropic"], "tools": [{"name": "t"}]}, {}, r"modelInput.tools = .* is not supported"),
        ({**BODY["anthropic"], "top_g": 1}, {}, r"modelInput.top_g is not supported \(did you mean 'top_[pk]'\?\)"),
        (
            {**BODY["anthropic"], "messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            {}, r"modelInput.messages\[0\].content\[0\] is a block of the type 'image', and only text is supported",
        ),
        (
            {**BODY["converse"], "messages": [{"role": "user", "content": [{"image": {}}]}]},
            {}, r"modelInput.messages\[0\].content\[0\] is a block with 'image', and only text is supported",
        ),
        ({**BODY["anthropic"], "messages": [{"role": "tool", "content": "x"}]}, {}, "the role user or assistant, and has 'tool'"),
        ({**BODY["meta"], "temperature": -1}, {}, "modelInput.temperature is -1, and must be at least 0"),
        ({"inputText": "x", "textGenerationConfig": {"topK": 1}}, {}, "modelInput.textGenerationConfig.topK is not supported"),
        ({"inputText": 3}, {}, "modelInput.inputText must be a text, and is of type integer"),
        ({"text": "x"}, {}, "modelInput is a body of no known family: its keys are 'text'"),
        (BODY["meta"], {"model": "anthropic.claude-3"}, "family meta, and the model 'anthropic.claude-3' takes one of anthropic"),
        (BODY["meta"], {"invocation": "Converse"}, "modelInput.prompt is not supported"),
        ({"text": "x"}, {"model": "meta.llama3"}, "modelInput.prompt must be a text, and is missing"),
        ("x", {}, "modelInput must be an object, and is of type string"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_failure_of_its_record(body: Any, options: dict[str, str], said: str) -> None:
    asked = read(body, **options)
    assert isinstance(asked, Failure)
    assert asked.kind is FailureKind.PROMPT
    assert re.search(said, asked.message), asked.message


def test_a_line_without_a_body_keeps_its_id() -> None:
    format_ = made()
    asked = format_.read({"recordId": "r", "input": 1}, ())
    assert isinstance(asked, Failure)
    assert "the keys of this are 'recordId', 'input'" in asked.message
    assert format_.problem({"recordId": "r"}) is None


def test_a_blank_prompt_is_an_empty_one() -> None:
    assert read({"prompt": " ", "max_gen_len": 3}).kind is FailureKind.EMPTY_PROMPT
    assert read({"anthropic_version": "x", "max_tokens": 5, "messages": [{"role": "user", "content": ""}]}).kind is (
        FailureKind.EMPTY_PROMPT
    )


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic"),
        ("us.meta.llama3-1-8b-instruct-v1:0", "meta"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-text-lite-v1", "amazon"),
        ("Qwen/Qwen3-8B", None),
        ("Qwen/Qwen2.5-7B", None),
        ("demo", None),
        (None, None),
    ],
)
def test_the_first_part_of_a_model_id_is_its_provider(model: str | None, provider: str | None) -> None:
    assert provider_of(model) == provider


def test_a_body_that_fits_several_families_is_the_model_s() -> None:
    body = {"prompt": "x", "max_tokens": 3, "temperature": 0}
    assert line(body, {"model": "mistral.mistral-7b-instruct-v0:2"})["modelOutput"].keys() == {"outputs"}
    assert line(body, {"model": "us.deepseek.r1-v1:0"})["modelOutput"].keys() == {"choices"}
    assert line(body, {"model": "cohere.command-text-v14"})["modelOutput"].keys() == {"generations"}


@pytest.mark.parametrize("body", [BODY["openai"], {"prompt": "x", "max_tokens": 3}])
def test_what_is_written_is_read_back(body: Any) -> None:
    asked = read(body)
    assert made().read(made().write("r", asked, None), ()) == asked


def test_every_family_is_in_the_table_once() -> None:
    assert set(BODY) <= set(FAMILIES)
