"""A row with what became of it in; the line of a batch's output out: of Vertex AI, or of the Gemini API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.quick_json import Form, hole, text_json, value_json
from llmbatch.core.types import EMPTY
from llmbatch.formats.base import Answered
from llmbatch.formats.gemini.requests import RequestProblem, named, thinking_of
from llmbatch.formats.gemini.schema import SchemaProblem
from llmbatch.formats.outcome import Code, Error, Success, outcome_of, plain_text
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
    if isinstance(outcome, Success):
        line = _vertex_line("", time, request, response(answered, outcome))
    else:
        line = _vertex_line(_status(outcome), time, request, {})
    beside = answered.row.keys() - line.keys()
    return {**{key: value for key, value in answered.row.items() if key in beside}, **line} if beside else line


def api_line(answered: Answered, *, strict: bool = False) -> dict[str, Any]:
    """A line of the Gemini API's output: the key with a response or an error."""
    outcome = outcome_of(answered.record, answered.asked, strict=strict)
    key = answered.row.get("key")
    if isinstance(outcome, Success):
        return _api_line(key, response(answered, outcome))
    return {"key": key, "error": {"code": outcome.code.rpc, "message": outcome.message}}


def _vertex_line(status: str, time: str, request: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": status, "processed_time": time, "request": request, "response": said}


def _api_line(key: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": key, "response": said}


def response(answered: Answered, success: Success) -> dict[str, Any]:
    """A GenerateContentResponse."""
    record = answered.record
    usage, samples = record["usage"], samples_of(answered, success.output)
    reason = reason_of(success.finish_reason)
    candidates = []
    for index, sample in enumerate(samples):
        candidate = _candidate(sample.text, reason)
        if sample.reasoning and _shows_thoughts(answered.row.get("request", {})):
            candidate["content"]["parts"].insert(0, {"text": sample.reasoning, "thought": True})
        if len(samples) > 1:
            candidate["index"] = index
        candidates.append(candidate | _probabilities(sample))
    asked, given = usage["prompt_tokens"], usage["completion_tokens"]
    return _response(candidates, asked, given, asked + given, answered.model)


def reason_of(reason: str | None) -> str:
    """Why an answer ended, in Gemini's words."""
    return _FINISH.get(reason or "stop", "OTHER")


def _candidate(text: Any, reason: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": reason}


def _response(candidates: Sequence[Any], asked: Any, given: Any, together: Any, model: Any) -> dict[str, Any]:
    return {
        "candidates": candidates,
        "usageMetadata": {"promptTokenCount": asked, "candidatesTokenCount": given, "totalTokenCount": together},
        "modelVersion": model,
    }


class PlainLines:
    """The lines of rows that are answered with one text and nothing more, as bytes: what ``vertex_line`` or ``api_line`` and
    ``json_line`` make of them.

    ``time`` is as for ``vertex_line``; without one they are the Gemini API's.
    """

    def __init__(self, model: str, time: str | None) -> None:
        candidates = [_candidate(hole("text"), hole("reason"))]
        said = _response(candidates, hole("asked"), hole("given"), hole("together"), hole("model"))
        self._is_vertex = time is not None
        line = _api_line(hole("key"), said) if time is None else _vertex_line("", hole("time"), hole("request"), said)
        self._form = Form(line, known={"model": text_json(model), "time": text_json(time or "")})

    def line(self, record: Mapping[str, Any], row: Mapping[str, Any]) -> bytes | None:
        """The line of a row's record, or ``None`` where it is another kind of row."""
        text = plain_text(record)
        if text is None or (self._is_vertex and row.keys() != _REQUEST):
            return None
        usage = record["usage"]
        asked, given = usage["prompt_tokens"], usage["completion_tokens"]
        texts: dict[str, str | int] = {
            "text": text_json(text),
            "reason": f'"{reason_of(record["finish_reason"])}"',
            "asked": asked,
            "given": given,
            "together": asked + given,
        }
        if self._is_vertex:
            texts["request"] = value_json(row["request"])
        else:
            texts["key"] = value_json(row.get("key"))
        return self._form.line(texts)


_REQUEST = {"request"}


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
    chosen = [_token(token) for token in sample.tokens]
    return {
        "avgLogprobs": sum(token["logProbability"] for token in chosen) / len(chosen),
        "logprobsResult": {
            "chosenCandidates": chosen,
            "topCandidates": [{"candidates": list(map(_token, token["top"]))} for token in sample.tokens],
        },
    }


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logProbability": token["logprob"]}
