"""The body of a chat or plain completion in, our ``Completion`` out; raises ``NoAnswer`` for what is neither."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.messages import text_of
from llmbatch.core.types import Completion, Failure, FailureKind, FinishReason, Outcome, Refusal, Request, Usage
from llmbatch.core.words import short
from llmbatch.engines.http.base import NoAnswer, Note
from llmbatch.engines.http.estimate import about
from llmbatch.engines.openai.dialect import Dialect

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop", "length": "length", "abort": "abort", "error": "error", "repetition": "repetition",
    "max_tokens": "length", "model_length": "length",
}  # fmt: skip
_LOWEST_LOGPROB = -9999.0


def completion_of(request: Request, body: bytes, dialect: Dialect, note: Note) -> Outcome:
    """What a reply of status 200 says."""
    data = data_in(body)
    try:
        return _completion(request, data, dialect, note)
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:  # a field is not of the usual shape
        raise NoAnswer(f"the server sent an answer of an unknown shape ({error!r}): {short(data)}") from error


def _completion(request: Request, data: Mapping[str, Any], dialect: Dialect, note: Note) -> Outcome:
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoAnswer(f"the server sent an answer without choices: {short(data)}")
    choice = choices[0]
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        message = "the server's content filter kept the answer back"
        return Refusal(request.key, Failure(FailureKind.REFUSED, message))
    text, reasoning, calls = _text(choice)
    finish_reason = _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    if (
        calls is not None and finish_reason == "length"
    ):  # it may be cut off in a call, which is text then, as any that is cut off
        text, calls = text + "".join(call["function"]["arguments"] for call in calls), None
    text = dialect.unwrapped(_without_prefill(text, request.prompt.prefill), request.constraint)
    return Completion(
        key=request.key,
        text=text,
        finish_reason=finish_reason,
        usage=usage_of(data.get("usage"), request, text, note),
        reasoning=reasoning,
        stop_reason=_stop_reason(choice.get("stop_reason")),
        logprobs=_sound_logprobs(choice.get("logprobs")),
        tool_calls=calls,
    )


def data_in(body: bytes) -> dict[str, Any]:
    """The object that a reply is. Raises ``NoAnswer`` for what is none, and for an error."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswer(f"the server sent no JSON: {short(body[:200].decode('utf-8', 'replace'))}") from None
    if not isinstance(data, dict):
        raise NoAnswer(f"the server sent no answer: {short(data)}")
    if data.get("error") and not data.get("choices"):  # some gateways say what failed with a status of 200
        raise NoAnswer(f"the server sent an error in place of an answer: {short(data['error'])}")
    return data


def _text(choice: Mapping[str, Any]) -> tuple[str, str | None, list[Any] | None]:
    """(the answer's text, the thinking before it, the calls of tools as they come)."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return _plain(choice.get("text")), None, None
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    text = _plain(message.get("content"))
    calls = message.get("tool_calls") or None
    if calls is not None and not all(isinstance(call["function"]["arguments"], str) for call in calls):
        raise TypeError("a call of a tool without a function and its arguments")
    if calls is None and not text and isinstance(message.get("refusal"), str):
        text = message["refusal"]
    return text, reasoning if isinstance(reasoning, str) else None, calls


def _plain(content: Any) -> str:
    """Text, also where it comes in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _without_prefill(text: str, prefill: str) -> str:
    """Without a start that the server repeats, and without white space at its start that the prefill ends with already.

    A chat template may trim what it is given: of ``"So, "`` the model then sees ``"So,"``, and writes the space itself.
    """
    if not prefill:
        return text
    if text.startswith(prefill):
        return text[len(prefill) :]
    end = prefill[len(prefill.rstrip()) :]
    doubled = next((size for size in range(len(end), 0, -1) if text.startswith(end[-size:])), 0)
    return text[doubled:]


def usage_of(said: Any, request: Request, text: str, note: Note) -> Usage:
    """What a reply says it took; where it does not say, about what ``text`` and the prompt take."""
    if isinstance(said, dict) and type(said.get("prompt_tokens")) is int:
        details = said.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return Usage(said["prompt_tokens"], _whole(said.get("completion_tokens")), _whole(cached))
    prompt = request.prompt
    asked = prompt.text or "" if prompt.messages is None else "".join(text_of(m["content"]) for m in prompt.messages)
    return Usage(about(asked, note), about(text, note))


def _whole(said: Any) -> int:
    return said if type(said) is int else 0


def _stop_reason(said: Any) -> str | int | None:
    return said if isinstance(said, str | int) and not isinstance(said, bool) else None


def _sound_logprobs(said: Any) -> list[dict[str, Any]] | None:
    try:
        return _logprobs(said)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent log-probabilities that cannot be read ({error!r}): {short(said)}") from error


def _logprobs(said: Any) -> list[dict[str, Any]] | None:
    """Both shapes, that of chat and that of completions, as ours."""
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("content"), list):
        return [_token(each["token"], each["logprob"], _pairs(each.get("top_logprobs"))) for each in said["content"]]
    tokens, own = said.get("tokens"), said.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(own, list):
        return None
    tops = said.get("top_logprobs") or [None] * len(tokens)
    return [
        _token(token, logprob, list((top or {}).items()))
        for token, logprob, top in zip(tokens, own, tops, strict=False)
    ]


def _pairs(top: Any) -> list[tuple[str, Any]]:
    return [(each["token"], each["logprob"]) for each in top or ()]


def _token(token: str, logprob: Any, top: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    ranked = sorted(top, key=lambda pair: -_number(pair[1]))
    return {**_entry(token, logprob), "top": [_entry(name, value) for name, value in ranked]}


def _entry(token: str, logprob: Any) -> dict[str, Any]:
    return {"token": token, "logprob": _number(logprob)}


def _number(logprob: Any) -> float:
    number = _LOWEST_LOGPROB if logprob is None else float(logprob)
    return number if number > _LOWEST_LOGPROB else _LOWEST_LOGPROB  # that of NaN, too, which is above nothing


__all__ = ["completion_of", "data_in", "usage_of"]
