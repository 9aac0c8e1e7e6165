from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Failure, FailureKind, Record, Rendered, Status, Usage
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.gemini.lines import api_line, vertex_line

REQUEST = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
SCHEMA = Failure(FailureKind.SCHEMA, "'a' is a required property")


def answered(record: Record, samples: int = 1, config: dict[str, Any] | None = None, **row: Any) -> Answered:
    request = REQUEST if config is None else {**REQUEST, "generationConfig": config}
    data = {"request": request, **row}
    read = wire_format("gemini").read(data, ())
    asked = Asked(samples=samples, own_check=isinstance(read, Rendered) and read.output is not None)
    return Answered(record_to_dict(record), data, asked, "demo", 1_700_000_000)


def ok(output: Any, finish_reason: Any = "stop", **more: Any) -> Record:
    return Record(0, 0, Status.OK, output, finish_reason, 1, Usage(4, 3, 2), **more)


def failed(kind: FailureKind, raw: str | None = None) -> Record:
    return Record(0, 0, kind.status, None, "stop" if raw else None, failure=Failure(kind, "no"), raw=raw)


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top": [{"token": "z", "logprob": -0.1}]}


def test_an_answer_is_a_response_with_its_usage() -> None:
    assert vertex_line(answered(ok("hello"), note="n"), time="then") == {
        "note": "n",
        "status": "",
        "processed_time": "then",
        "request": REQUEST,
        "response": {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 3, "totalTokenCount": 7},
            "modelVersion": "demo",
        },
    }


def candidates(record: Record, samples: int = 1, config: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api_line(answered(record, samples, config))["response"]["candidates"]
    return found


@pytest.mark.parametrize(("ours", "theirs"), [("stop", "STOP"), ("length", "MAX_TOKENS"), ("repetition", "OTHER")])
def test_why_an_answer_ended(ours: str, theirs: str) -> None:
    assert candidates(ok("a", ours))[0]["finishReason"] == theirs


def test_several_answers_are_several_candidates() -> None:
    assert [(c["index"], c["content"]["parts"][0]["text"]) for c in candidates(ok(["a", {"b": 1}]), 2)] == [
        (0, "a"),
        (1, '{"b": 1}'),
    ]


def test_log_probabilities_come_with_their_mean() -> None:
    [candidate] = candidates(ok("ab", logprobs=[token("a", -1.0), token("b", -2.0)]))
    assert candidate["avgLogprobs"] == -1.5
    top = {"candidates": [{"token": "z", "logProbability": -0.1}]}
    assert candidate["logprobsResult"] == {
        "chosenCandidates": [{"token": "a", "logProbability": -1.0}, {"token": "b", "logProbability": -2.0}],
        "topCandidates": [top, top],
    }


@pytest.mark.parametrize(("asked", "parts"), [(True, 2), (False, 1)])
def test_thoughts_are_shown_where_the_request_asks_for_them(asked: bool, parts: int) -> None:
    [candidate] = candidates(ok("a", reasoning="hm"), config={"thinkingConfig": {"includeThoughts": asked}})
    assert len(candidate["content"]["parts"]) == parts
    assert (candidate["content"]["parts"][0] == {"text": "hm", "thought": True}) is asked


@pytest.mark.parametrize(
    ("kind", "start", "rpc"),
    [
        (FailureKind.PROMPT, 'Bad Request: {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}', 3),
        (FailureKind.REJECTED, 'Unprocessable Content: {"error": {"code": 422', 9),
        (FailureKind.ENGINE, 'Internal Server Error: {"error": {"code": 500', 13),
        (FailureKind.ENGINE_DIED, 'Service Unavailable: {"error": {"code": 503', 14),
    ],
)
def test_a_row_without_an_answer_says_why(kind: FailureKind, start: str, rpc: int) -> None:
    line = vertex_line(answered(failed(kind)))
    assert line["status"].startswith(start)
    json.loads(line["status"].partition(": ")[2])
    assert line["response"] == {}
    assert api_line(answered(failed(kind), key="k")) == {"key": "k", "error": {"code": rpc, "message": "no"}}


def test_an_answer_that_fails_the_requests_own_check_is_a_success_unless_that_is_strict() -> None:
    row = answered(failed(FailureKind.SCHEMA, "{}"), config={"responseMimeType": "application/json"}, key="k")
    assert api_line(row)["response"]["candidates"][0]["content"]["parts"] == [{"text": "{}"}]
    assert api_line(row, strict=True) == {"key": "k", "error": {"code": 9, "message": "no"}}


def test_an_answer_that_fails_the_jobs_check_is_an_error() -> None:
    assert "error" in api_line(answered(failed(FailureKind.SCHEMA, "{}"), key="k"))


def test_a_line_that_could_not_be_read_has_its_line_all_the_same() -> None:
    record = record_to_dict(failed(FailureKind.MALFORMED_ROW))
    row = Answered(record, {}, Asked(), "demo", 0)
    assert api_line(row) == {"key": None, "error": {"code": 3, "message": "no"}}
    line = vertex_line(row)
    assert (line["request"], line["response"]) == ({}, {})
    assert line["status"].startswith("Bad Request")
