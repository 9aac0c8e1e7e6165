from __future__ import annotations

from typing import Any

from llmbatch.core.types import FailureKind, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.openai.lines import Line, line_not_run, line_of

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0}
SCHEMA = {"response_format": {"type": "json_object"}}


def line(
    status: str,
    kind: FailureKind | None = None,
    *,
    body: Any = (),
    samples: int = 1,
    strict: bool = False,
    **record: Any,
) -> Line:
    told: dict[str, Any] = {
        "id": "a",
        "index": 17,
        "status": status,
        "output": None,
        "finish_reason": "stop",
        "usage": USAGE,
    }
    if kind is not None:
        told["error"] = {"kind": kind.value, "message": "why"}
    row = {
        "custom_id": "a",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "x"}], **dict(body)},
    }
    read = wire_format("openai").read(row, ())
    asked = Asked(samples=samples, own_check=isinstance(read, Rendered) and read.output is not None)
    return line_of(Answered({**told, **record}, row, asked, "demo", 255), strict=strict)


def test_what_was_answered_is_in_the_output_file() -> None:
    ok, data = line("ok", output="hi")
    assert ok
    assert (data["id"], data["custom_id"], data["error"]) == ("batch_req_ff0000000011", "a", None)
    assert data["response"]["status_code"] == 200


def test_what_was_not_is_an_error_with_its_code_and_the_key_that_is_wrong() -> None:
    ok, data = line("failed", FailureKind.PROMPT, body={"temperature": "hot"})
    assert not ok
    assert data["response"]["status_code"] == 400
    error = data["response"]["body"]["error"]
    assert error == {"message": "why", "type": "invalid_request_error", "param": "temperature", "code": "prompt"}


def test_a_prompt_that_is_too_long_has_openai_s_code() -> None:
    assert line("failed", FailureKind.TOO_LONG).data["response"]["body"]["error"]["code"] == "context_length_exceeded"


def test_an_engine_s_failure_is_the_server_s() -> None:
    response = line("failed", FailureKind.ENGINE_DIED).data["response"]
    assert (response["status_code"], response["body"]["error"]["type"]) == (503, "server_error")


def test_an_answer_that_was_cut_off_says_so_in_its_finish_reason() -> None:
    ok, data = line("truncated", FailureKind.TRUNCATED, raw="he", finish_reason="length")
    assert ok
    [choice] = data["response"]["body"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("he", "length")


def test_an_answer_that_fails_the_request_s_own_check_is_an_error_where_that_is_asked_for() -> None:
    ok, data = line("invalid", FailureKind.INVALID_JSON, body=SCHEMA, raw="{")
    assert ok
    assert data["response"]["body"]["choices"][0]["message"]["content"] == "{"
    ok, data = line("invalid", FailureKind.INVALID_JSON, body=SCHEMA, raw="{", strict=True)
    assert (ok, data["response"]["status_code"]) == (False, 422)


def test_an_answer_that_fails_a_check_of_the_job_s_alone_is_an_error() -> None:
    assert not line("invalid", FailureKind.INVALID_JSON, raw="{").ok


def test_of_several_answers_those_that_a_check_refused_are_there_as_they_came() -> None:
    history = [{"sample": 2, "text": "third"}, {"sample": 2, "text": "third again"}]
    ok, data = line(
        "invalid", FailureKind.SCHEMA, body=SCHEMA, samples=3, output=["{}", None, None], raw="second", history=history
    )
    assert ok
    texts = [choice["message"]["content"] for choice in data["response"]["body"]["choices"]]
    assert texts == ["{}", "second", "third again"]


def test_several_answers_of_which_one_has_no_text_are_an_error() -> None:
    history = [{"sample": 1, "text": None}]
    found = line("invalid", FailureKind.SCHEMA, body=SCHEMA, samples=2, output=[None, None], raw="x", history=history)
    assert not found.ok


def test_a_row_that_was_never_run_has_no_response() -> None:
    data = line_not_run(3, "a", 255, "batch_expired")
    assert (data["response"], data["error"]["code"]) == (None, "batch_expired")
