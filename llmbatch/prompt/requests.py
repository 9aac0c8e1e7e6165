"""Rows that are OpenAI-batch requests already in; their prompt, sampling and output constraint out, by vLLM's names.

A row's data is a line of such a file: ``{"custom_id": ..., "url": ..., "body": {...}}``. A body key that changes the
answer and is not known here is a failure of that row, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from llmbatch.core.messages import ready_messages
from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases
from llmbatch.core.types import Failure, FailureKind, Message, Prompt, Row
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.prompt.base import EMPTY, Rendered

URLS = ("/v1/chat/completions", "/v1/completions")

# Keys that say nothing about the answer here: who asks, how it is sent, what is kept, and how a server schedules it.
_IGNORED = frozenset(
    {
        "model",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "stream_options",
        "parallel_tool_calls",
        "request_id",
        "session_id",
        "priority",
        "cache_salt",
        "include_reasoning",
        "return_tokens_as_token_ids",
        "return_token_ids",
        "return_prompt_text",
    }
)
# Keys that may be there with the value that changes nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "echo": (False,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "suffix": ("",),
    "add_special_tokens": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template_kwargs": ({},),
}
_ADVICE = {
    "chat_template": "set it for the whole job, under chat.template",
    "chat_template_kwargs": "set it for the whole job, under chat.template_kwargs",
    "reasoning_effort": "set it for the whole job, under chat.template_kwargs",
    "tools": "tool calls are not supported",
    "functions": "tool calls are not supported",
    "tool_choice": "tool calls are not supported",
    "stream": "answers are not streamed",
    "use_beam_search": "beam search is not supported",
    "truncate_prompt_tokens": "what happens to a long prompt is the job's overflow policy",
}
_PROMPT_KEYS = frozenset({"messages", "prompt"})
_RENAMED = frozenset({"max_completion_tokens", "top_logprobs", "response_format", "structured_outputs"})
_GUIDED = {"guided_json": "schema", "guided_choice": "choice", "guided_regex": "regex", "guided_grammar": "grammar"}
_STRUCTURED = {"json": "schema", "choice": "choice", "regex": "regex", "grammar": "grammar"}
_KNOWN = frozenset({*SAMPLING, *_IGNORED, *_NEUTRAL, *_PROMPT_KEYS, *_RENAMED, *_GUIDED})


class _RequestError(Exception):
    """What is wrong with a request, in words that follow the row's id."""


class RequestsPrompt:
    """The prompt of a job whose input is requests. ``adapters`` are the LoRA adapters that a ``model`` may name."""

    name = "requests"
    sampling: Mapping[str, Any] = EMPTY
    output: Mapping[str, Any] | None = None
    text = "requests"

    def __init__(self, adapters: Collection[str] = ()) -> None:
        self._adapters = frozenset(adapters)

    def render(self, row: Row) -> Rendered | Failure:
        """The request's prompt, or a ``Failure`` that names the row and the key. Never raises for what is in a row."""
        if row.failure is not None:
            return row.failure
        try:
            body = _body(row.data)
            prompt, continued = _prompt(body)
            rendered = Rendered(prompt, _sampling(body, continued), _output(body), self._lora(body))
        except _RequestError as error:
            return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {error}")
        last = prompt.messages[-1]["content"] if prompt.messages else prompt.text
        if not last or last.isspace():
            return Failure(FailureKind.EMPTY_PROMPT, f"row {short(row.id)}: the request's prompt is blank")
        return rendered

    def _lora(self, body: Mapping[str, Any]) -> str | None:
        model = body.get("model")
        return model if isinstance(model, str) and model in self._adapters else None


def _body(data: Mapping[str, Any]) -> Mapping[str, Any]:
    url, method = data.get("url"), data.get("method")
    if url is not None and url not in URLS:
        raise _RequestError(f"the url {short(url)} is not supported; known are {' and '.join(URLS)}")
    if method is not None and method != "POST":
        raise _RequestError(f"the method must be POST, not {short(method)}")
    body = data.get("body")
    if not isinstance(body, Mapping):
        raise _RequestError(f"the request's body must be an object, and is of type {type_name(body)}")
    return body


def _prompt(body: Mapping[str, Any]) -> tuple[Prompt, bool]:
    """The prompt, and whether its last message is the start of the answer."""
    messages, text = body.get("messages"), body.get("prompt")
    if (messages is None) == (text is None):
        seen = "neither" if messages is None else "both"
        raise _RequestError(f"the body must have either messages or prompt, and has {seen}")
    if messages is None:
        if not isinstance(text, str):
            raise _RequestError(f"body.prompt must be one text, and is of type {type_name(text)}")
        if not is_encodable(text):
            raise _RequestError("body.prompt holds half a surrogate pair, which is no character")
        return Prompt(text=text), False
    ready = ready_messages(messages)
    if isinstance(ready, str):
        raise _RequestError(f"body.messages: {ready}")
    if body.get("continue_final_message"):
        return _with_prefill(ready), True
    return Prompt(messages=ready), False


def _with_prefill(messages: tuple[Message, ...]) -> Prompt:
    if messages[-1]["role"] != "assistant" or len(messages) == 1:
        raise _RequestError("continue_final_message needs a last message of the assistant's, after another message")
    return Prompt(messages=messages[:-1], prefill=messages[-1]["content"])


def _sampling(body: Mapping[str, Any], continued: bool) -> Mapping[str, Any]:
    sampling: dict[str, Any] = {}
    for key, value in body.items():
        if value is None or key in _IGNORED or key in _PROMPT_KEYS or key in _RENAMED or key in _GUIDED:
            continue
        if key in SAMPLING:
            sampling[key] = value
        elif key in _NEUTRAL:
            if value not in _NEUTRAL[key] and not (
                continued and key in ("continue_final_message", "add_generation_prompt")
            ):
                raise _RequestError(f"body.{key} = {short(value)} is not supported{_advice(key)}")
        else:
            raise _RequestError(f"body.{key} is not supported{_advice(key)}")
    if (limit := body.get("max_completion_tokens")) is not None:
        sampling["max_tokens"] = limit
    if sampling.get("logprobs").__class__ is bool:  # chat requests say whether, and how many beside it
        if sampling.pop("logprobs"):
            sampling["logprobs"] = body.get("top_logprobs") or 0
    elif body.get("top_logprobs"):
        raise _RequestError("body.top_logprobs needs body.logprobs = true")
    for name, value in sampling.items():
        if problem := sampling_problem(name, value):
            raise _RequestError(f"body.{name} {problem}")
    if "logit_bias" in sampling:
        try:
            sampling["logit_bias"] = token_biases(sampling["logit_bias"])
        except ValueError as error:
            raise _RequestError(f"body.logit_bias maps token ids to numbers: {error}") from error
    return sampling or EMPTY


def _advice(key: str) -> str:
    if key in _ADVICE:
        return f": {_ADVICE[key]}"
    return near(key, _KNOWN)


def _output(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    outputs = [
        output
        for key, read in _OUTPUTS.items()
        if (value := body.get(key)) is not None and (output := read(key, value)) is not None
    ]
    if len(outputs) > 1:
        raise _RequestError("the body constrains the answer in more than one way")
    return outputs[0] if outputs else None


def _response_format(key: str, value: Any) -> Mapping[str, Any] | None:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    if kind == "json_schema":
        described = value.get("json_schema")
        schema = described.get("schema") if isinstance(described, Mapping) else None
        return _checked(f"{key}.json_schema", "schema", schema)
    raise _RequestError(f"body.{key} must have the type text, json_object or json_schema, and is {short(value)}")


def _structured_outputs(key: str, value: Any) -> Mapping[str, Any] | None:
    given = (
        {name: setting for name, setting in value.items() if setting is not None} if isinstance(value, Mapping) else {}
    )
    if given.pop("json_object", False):
        given["json"] = {"type": "object"}
    given = {name: setting for name, setting in given.items() if setting is not False}  # options that are off
    if len(given) != 1 or not given.keys() <= _STRUCTURED.keys():
        raise _RequestError(f"body.{key} must have one of json, choice, regex and grammar, and is {short(value)}")
    ((name, setting),) = given.items()
    return _checked(f"{key}.{name}", _STRUCTURED[name], setting)


def _guided(key: str, value: Any) -> Mapping[str, Any] | None:
    return _checked(key, _GUIDED[key], value)


_OUTPUTS: Mapping[str, Callable[[str, Any], Mapping[str, Any] | None]] = {
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    **dict.fromkeys(_GUIDED, _guided),
}


def _checked(key: str, kind: str, value: Any) -> Mapping[str, Any]:
    if kind == "schema":
        fits, wanted = isinstance(value, Mapping), "a JSON Schema (an object)"
    elif kind == "choice":
        fits = isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
        wanted = "a list of texts"
    else:
        fits, wanted = isinstance(value, str) and bool(value), "a text"
    if not fits:
        raise _RequestError(f"body.{key} must be {wanted}, and is of type {type_name(value)} ({short(value)})")
    return {kind: value}
