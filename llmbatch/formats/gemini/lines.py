"""A row with what became of it in; the line of a batch's output out: of Vertex AI, or of the Gemini API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmbatch.core.types import EMPTY
from llmbatch.formats.base import Answered
from llmbatch.formats.gemini.requests import RequestProblem, named, thinking_of
from llmbatch.formats.gemini.schema import SchemaProblem
from llmbatch.formats.outcome import Code, Error, Success, outcome_of
from llmbatch.formats.samples import Sample, samples_of

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS"}
_PHRASES = {
    400: "Bad Request", 408: "Request Timeout", 422: "Unprocessable Content", 499: "Client Closed Request",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


def vertex_line(answered: Answered, *, strict: bool = False, time: str = "") -> dict[str, Any]:
    """A line of Vertex AI's output: the request, its response, and in ``status`` why there is none.

    Keys beside the request are copied, as far as their names are not those of the line. ``time`` is when it is said to be done.
    """
    request = answered.row.get("request", {})
    outcome = outcome_of(answered.record, answered.asked, strict=strict)
    line = {
        "status": "" if isinstance(outcome, Success) else _status(outcome),
        "processed_time": time,
        "request": request,
        "response": response(answered, outcome) if isinstance(outcome, Success) else {},
    }
    beside = answered.row.keys() - line.keys()
    return {**{key: value for key, value in answered.row.items() if key in beside}, **line} if beside else line


def api_line(answered: Answered, *, strict: bool = False) -> dict[str, Any]:
    """A line of the Gemini API's output: the key with a response or an error."""
    outcome = outcome_of(answered.record, answered.asked, strict=strict)
    line: dict[str, Any] = {"key": answered.row.get("key")}
    if isinstance(outcome, Success):
        return {**line, "response": response(answered, outcome)}
    return {**line, "error": {"code": outcome.code.rpc, "message": outcome.message}}


def response(answered: Answered, success: Success) -> dict[str, Any]:
    """A GenerateContentResponse."""
    record = answered.record
    usage, samples = record["usage"], samples_of(answered, success.output)
    reason = _FINISH.get(success.finish_reason or "stop", "OTHER")
    candidates = []
    for index, sample in enumerate(samples):
        parts = [{"text": sample.text}]
        if sample.reasoning and _shows_thoughts(answered.row.get("request", {})):
            parts.insert(0, {"text": sample.reasoning, "thought": True})  # type: ignore[dict-item]
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "finishReason": reason}
        if len(samples) > 1:
            candidate["index"] = index
        candidates.append(candidate | _probabilities(sample))
    return {
        "candidates": candidates,
        "usageMetadata": {
            "promptTokenCount": usage["prompt_tokens"],
            "candidatesTokenCount": usage["completion_tokens"],
            "totalTokenCount": usage["prompt_tokens"] + usage["completion_tokens"],
        },
        "modelVersion": answered.model,
    }


def _shows_thoughts(request: Mapping[str, Any]) -> bool:
    try:
        config = named(named(request, "").get("generationConfig", EMPTY), "")
        return thinking_of(config).get("includeThoughts") is True
    except (RequestProblem, SchemaProblem):
        return False


def _status(error: Error) -> str:
    code: Code = error.code
    body = {"error": {"code": code.http, "message": error.message, "status": code.rpc_name}}
    return f"{_PHRASES[code.http]}: {json.dumps(body, ensure_ascii=False)}"


def _probabilities(sample: Sample) -> dict[str, Any]:
    """The log probabilities of an answer's tokens, and their mean."""
    if not sample.tokens:
        return {}
    chosen = [_candidate(token) for token in sample.tokens]
    return {
        "avgLogprobs": sum(token["logProbability"] for token in chosen) / len(chosen),
        "logprobsResult": {
            "chosenCandidates": chosen,
            "topCandidates": [{"candidates": list(map(_candidate, token["top"]))} for token in sample.tokens],
        },
    }


def _candidate(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logProbability": token["logprob"]}
