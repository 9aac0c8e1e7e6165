"""OpenAI's batch format, chat, plain completions and embeddings, both ways: requests, ``{"custom_id": ..., "url": ..., "body":
{...}}``, in and out, and records out as the lines of a batch's output.

Keys of vLLM's server are taken too. A body key that changes the answer and is not known here is a failure of that row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from llmbatch.core.messages import images_in, ready_messages, text_of
from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases
from llmbatch.core.types import EMPTY, Failure, FailureKind, Message, Prompt, Rendered, RowId
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.base import Answered, Container, NoSettings

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

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
_OF_EMBEDDINGS = frozenset(
    {"input", "encoding_format", "dimensions"}
)  # besides those that say nothing about the answer
_RENAMED = frozenset({"max_completion_tokens", "top_logprobs", "response_format", "structured_outputs"})
_GUIDED = {"guided_json": "schema", "guided_choice": "choice", "guided_regex": "regex", "guided_grammar": "grammar"}
_STRUCTURED = {"json": "schema", "choice": "choice", "regex": "regex", "grammar": "grammar"}
_KNOWN = frozenset({*SAMPLING, *_IGNORED, *_NEUTRAL, *_PROMPT_KEYS, *_RENAMED, *_GUIDED})


class _RequestError(Exception):
    """What is wrong with a request, in words that follow the row's id."""


class OpenAI:
    """The format; see ``formats/base.py``. A chat request is one with messages, a completion one with a prompt.

    A request for an embedding is known by its URL.
    """

    Settings = NoSettings
    container: Container = "lines"
    id_field = "custom_id"
    keys = frozenset({"custom_id", "body"})
    takes_text = takes_prompt = False

    def __init__(self, settings: NoSettings) -> None:
        pass

    def problem(self, line: Mapping[str, Any]) -> str | None:
        form = 'a request has the form {"custom_id": ..., "body": {...}}, and'
        if missing := [name for name in ("custom_id", "body") if name not in line]:
            return f"{form} this has no {' and no '.join(missing)}"
        if not isinstance(line["body"], Mapping):
            return f"{form} the body of this is not an object"
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        try:
            body = _body(line)
            if line.get("url") == URLS[2]:
                return _embedding(body, adapters)
            prompt, continued = _prompt(body)
            model = body.get("model")
            lora = model if isinstance(model, str) and model in adapters else None
            rendered = Rendered(prompt, _sampling(body, continued), _output(body), lora)
        except _RequestError as error:
            return Failure(FailureKind.PROMPT, str(error))
        last = prompt.messages[-1]["content"] if prompt.messages else prompt.text
        if not last or (isinstance(last, str) and last.isspace()):
            return Failure(FailureKind.EMPTY_PROMPT, "the request's prompt is blank")
        return rendered

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """A LoRA adapter is named as the model, as vLLM's server has it. The id becomes text.

        vLLM's ``run-batch`` accepts such lines for chat prompts. Text prompts get the URL ``/v1/completions``, which OpenAI's batch
        takes and ``run-batch`` of vLLM 0.32 does not.
        """
        prompt = rendered.prompt
        chat = prompt.messages is not None
        body: dict[str, Any] = {}
        if name := rendered.lora or model:
            body["model"] = name
        if rendered.vector:
            body |= (
                {"messages": list(prompt.messages)} if prompt.messages else {"input": f"{prompt.text}{prompt.prefill}"}
            )
            return {"custom_id": str(row_id), "method": "POST", "url": URLS[2], "body": body}
        body |= _written_prompt(prompt) | _written_sampling(rendered.sampling, chat=chat)
        if rendered.output:
            body |= _written_output(rendered.output)
        return {"custom_id": str(row_id), "method": "POST", "url": URLS[0] if chat else URLS[1], "body": body}

    def result(self, answered: Answered) -> dict[str, Any]:
        """A line has a ``response`` where the record is ok and else an ``error``, never both.

        ``custom_id`` is the record's id as text. An output that is not text becomes JSON text.
        """
        record = answered.record
        request = f"llmbatch-{record['index']}"
        line: dict[str, Any] = {"id": request, "custom_id": str(record["id"]), "response": None, "error": None}
        if record["status"] == "ok":
            line["response"] = {"status_code": 200, "request_id": request, "body": _completion(answered)}
        else:
            error = record.get("error") or {"kind": record["status"], "message": ""}
            line["error"] = {"code": error["kind"], "message": error["message"]}
        return line


# Requests in.


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


def _embedding(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    for key, value in body.items():
        if value is not None and key not in (*_IGNORED, *_OF_EMBEDDINGS, "messages"):
            raise _RequestError(f"body.{key} is not supported for an embedding{near(key, _OF_EMBEDDINGS)}")
    if body.get("dimensions") is not None:
        raise _RequestError("body.dimensions: set them for the whole job, as program.settings.dimensions")
    if body.get("encoding_format") not in (None, "float"):
        raise _RequestError(
            f"body.encoding_format is {short(body['encoding_format'])}, and vectors are written as float"
        )
    texts = body.get("input")
    if isinstance(texts, list) and len(texts) == 1:
        texts = texts[0]
    if texts is not None and not isinstance(texts, str):
        raise _RequestError(
            f"body.input must be one text, and is of type {type_name(texts)}: give each text a line of its own"
        )
    given = {"messages": body.get("messages"), "prompt": texts}
    prompt, _ = _prompt({key: value for key, value in given.items() if value is not None})
    said = prompt.messages[-1]["content"] if prompt.messages else prompt.text
    if not said or said.isspace():
        raise _RequestError("body.input is blank")
    model = body.get("model")
    return Rendered(prompt, lora=model if isinstance(model, str) and model in adapters else None, vector=True)


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
    return Prompt(messages=ready, images=images_in(ready)), False


def _with_prefill(messages: tuple[Message, ...]) -> Prompt:
    if messages[-1]["role"] != "assistant" or len(messages) == 1:
        raise _RequestError("continue_final_message needs a last message of the assistant's, after another message")
    return Prompt(messages[:-1], prefill=text_of(messages[-1]["content"]), images=images_in(messages[:-1]))


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


# Requests out.


def _written_prompt(prompt: Prompt) -> dict[str, Any]:
    if prompt.messages is None:
        return {"prompt": f"{prompt.text}{prompt.prefill}"}
    if not prompt.prefill:
        return {"messages": list(prompt.messages)}
    start = {"role": "assistant", "content": prompt.prefill}
    return {"messages": [*prompt.messages, start], "continue_final_message": True, "add_generation_prompt": False}


def _written_sampling(sampling: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, value in sampling.items():
        if name == "max_tokens" and chat:
            written["max_completion_tokens"] = value
        elif name == "logprobs" and chat:
            written |= {"logprobs": True, "top_logprobs": value}
        else:
            written[name] = value
    return written


def _written_output(output: Mapping[str, Any]) -> dict[str, Any]:
    if "schema" in output:
        described = {"name": "output", "schema": output["schema"]}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    return {"structured_outputs": dict(output)}


# Results out.


def _completion(answered: Answered) -> dict[str, Any]:
    record, chat = answered.record, answered.asked.chat
    usage = record["usage"]
    if answered.asked.vector:
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": record["output"]}],
            "model": answered.model,
            "usage": {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]},
        }
    choice = _chat_choice if chat else _text_choice
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{record['index']}",
        "object": "chat.completion" if chat else "text_completion",
        "created": answered.created,
        "model": answered.model,
        "choices": [
            {"index": index, **choice(_text(output), reasoning, tokens), "finish_reason": record["finish_reason"]}
            for index, (output, reasoning, tokens) in enumerate(_samples(answered))
        ],
        "usage": {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]},
        },
    }


def _samples(answered: Answered) -> list[tuple[Any, str | None, list[dict[str, Any]] | None]]:
    """(output, reasoning, tokens) of each answer. A record tells of a single answer without a list, and nothing if none has it.

    A row that was tried again with another number of answers is one choice, without what cannot be told of it.
    """
    record, count = answered.record, answered.asked.samples
    output, reasoning, tokens = record["output"], record.get("reasoning"), record.get("logprobs")
    if count > 1:
        told = [[None] * count if value is None else value for value in (output, reasoning, tokens)]
        if all(isinstance(value, list) and len(value) == count for value in told):
            return list(zip(*told, strict=True))
    alone = isinstance(tokens, list) and all(isinstance(token, Mapping) for token in tokens)
    return [(output, reasoning if isinstance(reasoning, str) else None, tokens if alone else None)]


def _chat_choice(text: str, reasoning: str | None, tokens: list[dict[str, Any]] | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if reasoning is not None:
        message["reasoning"] = reasoning
    return {"message": message, "logprobs": None if tokens is None else {"content": list(map(_token, tokens))}}


def _text_choice(text: str, _reasoning: str | None, tokens: list[dict[str, Any]] | None) -> dict[str, Any]:
    if tokens is None:
        return {"text": text, "logprobs": None}
    logprobs = {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in tokens],
    }
    return {"text": text, "logprobs": logprobs}


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "token": token["token"],
        "logprob": token["logprob"],
        "bytes": None,
        "top_logprobs": [{"token": t["token"], "logprob": t["logprob"], "bytes": None} for t in token["top"]],
    }


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
