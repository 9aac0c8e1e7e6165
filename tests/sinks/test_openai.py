from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Record, Status
from llmbatch.formats.base import Asked
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks

Seal = Callable[..., Finished]


def written(folder: Path, finished: Finished) -> list[dict[str, Any]]:
    write_sinks(SinkSettings(formats=("openai",)), finished, folder)
    return [json.loads(line) for line in (folder / "results.openai.jsonl").read_bytes().splitlines()]


def test_an_ok_record_is_a_chat_completion(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    lines = written(tmp_path, seal(records, 2, model="m", created=1_700_000_000))
    assert lines[0] == {
        "id": "llmbatch-0",
        "custom_id": "a",
        "response": {
            "status_code": 200,
            "request_id": "llmbatch-0",
            "body": {
                "id": "chatcmpl-0",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": records[0].output},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "total_tokens": 15,
                    "prompt_tokens_details": {"cached_tokens": 4},
                },
            },
        },
        "error": None,
    }


def test_a_line_has_a_response_or_an_error(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    lines = written(tmp_path, seal(records, 2))
    assert [line["custom_id"] for line in lines] == [str(record.id) for record in records]
    assert [line["response"] is None for line in lines] == [False, True, True, False, False]
    assert [line["error"] and line["error"]["code"] for line in lines] == [None, "too_long", "schema", None, None]
    assert lines[2]["error"]["message"] == "'age' is a required property"


def test_an_output_that_is_json_becomes_text_with_its_reasoning_and_logprobs(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    [choice] = written(tmp_path, seal(records, 2))[3]["response"]["body"]["choices"]
    assert json.loads(choice["message"]["content"]) == records[3].output
    assert choice["message"]["reasoning"] == "hm"
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "x",
                "logprob": -0.5,
                "bytes": None,
                "top_logprobs": [
                    {"token": "x", "logprob": -0.5, "bytes": None},
                    {"token": "y", "logprob": -1.0, "bytes": None},
                ],
            }
        ]
    }


def test_several_samples_are_several_choices(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    choices = written(tmp_path, seal(records, 5, asked=lambda row: Asked(samples=2)))[4]["response"]["body"]["choices"]
    assert [(choice["index"], choice["message"]["content"]) for choice in choices] == [(0, "one"), (1, '{"n": 2}')]
    [choice] = written(tmp_path, seal(records, 5, asked=lambda row: Asked(samples=1)))[4]["response"]["body"]["choices"]
    assert json.loads(choice["message"]["content"]) == ["one", {"n": 2}]


def test_a_completion_job_gives_text_completions(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    body = written(tmp_path, seal(records, 5, asked=lambda row: Asked(chat=False)))[3]["response"]["body"]
    assert (body["id"], body["object"]) == ("cmpl-3", "text_completion")
    [choice] = body["choices"]
    assert json.loads(choice["text"]) == records[3].output
    assert choice["logprobs"]["top_logprobs"] == [{"x": -0.5, "y": -1.0}]


def tokens(text: str) -> list[dict[str, Any]]:
    return [{"token": text, "logprob": -0.5, "top": []}]


def test_each_of_several_choices_has_its_own_reasoning_and_logprobs(tmp_path: Path, seal: Seal) -> None:
    record = Record(
        0, 0, Status.OK, ["one", "two"], "stop", 2, reasoning=["hm", None], logprobs=[tokens("one"), tokens("two")]
    )
    [line] = written(tmp_path, seal([record], 1, asked=lambda row: Asked(samples=2)))
    one, two = line["response"]["body"]["choices"]
    assert one["message"] == {"role": "assistant", "content": "one", "reasoning": "hm"}
    assert two["message"] == {"role": "assistant", "content": "two"}
    assert [choice["logprobs"]["content"][0]["token"] for choice in (one, two)] == ["one", "two"]
    [line] = written(tmp_path, seal([record], 1, asked=lambda row: Asked(chat=False, samples=2)))
    assert [choice["logprobs"]["tokens"] for choice in line["response"]["body"]["choices"]] == [["one"], ["two"]]


@pytest.mark.parametrize("samples", [1, 3])
def test_answers_of_a_retry_that_asked_for_another_number_are_one_choice(
    tmp_path: Path, seal: Seal, samples: int
) -> None:
    record = Record(0, 0, Status.OK, ["a", "b"], "stop", 2, reasoning=["hm", None], logprobs=[tokens("a"), None])
    [line] = written(tmp_path, seal([record], 1, asked=lambda row: Asked(samples=samples)))
    [choice] = line["response"]["body"]["choices"]
    assert choice["message"] == {"role": "assistant", "content": '["a", "b"]'}
    assert choice["logprobs"] is None
