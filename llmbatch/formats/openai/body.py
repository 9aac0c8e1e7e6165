"""What the bodies of all endpoints share: a body's sampling and what it holds an answer to in, by our names out; and back.

Keys of vLLM's server are taken too. A key that changes the answer and is not known is an error, never left unread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from llmbatch.core.logprobs import of_answer
from llmbatch.core.quick_json import hole
from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases
from llmbatch.core.types import EMPTY
from llmbatch.core.words import is_of, near, short, type_name
from llmbatch.formats.base import Answered
from llmbatch.formats.outcome import Success

IGNORED = frozenset(
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
"""Keys that say nothing about the answer here: who asks, how it is sent, what is kept, and how a server schedules it."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
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
"""Keys that may be there with a value that changes nothing."""
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
    "previous_response_id": "responses are not kept: give the whole conversation as input",
    "background": "a batch is in the background anyway: leave it out",
}
_RENAMED = frozenset({"max_completion_tokens", "top_logprobs", "response_format", "structured_outputs"})
_GUIDED = {"guided_json": "schema", "guided_choice": "choice", "guided_regex": "regex", "guided_grammar": "grammar"}
_STRUCTURED = {"json": "schema", "choice": "choice", "regex": "regex", "grammar": "grammar"}
_FINISH = frozenset({"stop", "length"})  # reasons that OpenAI has too


class RequestError(Exception):
    """What is wrong with a request, in words that follow the row's id; ``param`` is the key of the body, where it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Choice(NamedTuple):
    """One of a row's answers. ``tokens`` are those of a record's ``logprobs``."""

    text: str
    finish_reason: str
    reasoning: str | None
    tokens: list[dict[str, Any]] | None
    stop_reason: str | None = None

    @property
    def more(self) -> dict[str, Any]:
        """What vLLM's server says besides: the stop sequence that ended it."""
        return {} if self.stop_reason is None else {"stop_reason": self.stop_reason}


# Requests in.


def sampling_of(
    body: Mapping[str, Any],
    own: frozenset[str],
    *,
    neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
) -> Mapping[str, Any]:
    """The sampling that a body asks for, by vLLM's names. ``own`` are the keys that its endpoint reads. Raises ``RequestError``."""
    sampling: dict[str, Any] = {}
    passed = _passed(own)
    for key, value in body.items():
        if value is None or key in passed:
            continue
        if key in SAMPLING:
            sampling[key] = value
        elif key in neutral:
            if value not in neutral[key]:
                raise RequestError(f"body.{key} = {short(value)} is not supported{_advice(key, own)}", key)
        else:
            raise RequestError(f"body.{key} is not supported{_advice(key, own)}", key)
    if (limit := body.get("max_completion_tokens")) is not None:
        sampling["max_tokens"] = limit
    if sampling.get("logprobs").__class__ is bool:  # chat requests say whether, and how many beside it
        if sampling.pop("logprobs"):
            sampling["logprobs"] = body.get("top_logprobs") or 0
    elif body.get("top_logprobs"):
        raise RequestError("body.top_logprobs needs body.logprobs = true", "top_logprobs")
    for name, value in sampling.items():
        if problem := sampling_problem(name, value):
            raise RequestError(f"body.{name} {problem}", name)
    if "logit_bias" in sampling:
        try:
            sampling["logit_bias"] = token_biases(sampling["logit_bias"])
        except ValueError as error:
            raise RequestError(f"body.logit_bias maps token ids to numbers: {error}", "logit_bias") from error
    return sampling or EMPTY


@cache
def _passed(own: frozenset[str]) -> frozenset[str]:
    """The keys that say nothing of sampling, or are read elsewhere."""
    return own | IGNORED | _RENAMED | _GUIDED.keys()


def adapter_of(body: Mapping[str, Any], adapters: Collection[str]) -> str | None:
    """The adapter that a body names as its model, as vLLM's server has it."""
    model = body.get("model")
    return model if isinstance(model, str) and model in adapters else None


def is_ids(value: Any) -> bool:
    """Whether a value is token ids, of at least one."""
    return isinstance(value, list) and bool(value) and all(is_of(each, "integer") and each >= 0 for each in value)


def output_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a body holds its answer to. Raises ``RequestError``."""
    if _OUTPUTS.keys().isdisjoint(body):
        return None
    outputs = [
        output
        for key, read in _OUTPUTS.items()
        if (value := body.get(key)) is not None and (output := read(key, value)) is not None
    ]
    if len(outputs) > 1:
        raise RequestError("the body constrains the answer in more than one way")
    return outputs[0] if outputs else None


def schema_of(key: str, described: Any) -> Mapping[str, Any]:
    """The JSON Schema that is described. Raises ``RequestError``."""
    return _checked(key, "schema", described.get("schema") if isinstance(described, Mapping) else None)


def _advice(key: str, own: Collection[str]) -> str:
    if key in _ADVICE:
        return f": {_ADVICE[key]}"
    return near(key, {*SAMPLING, *IGNORED, *NEUTRAL, *_RENAMED, *_GUIDED, *own})


def _response_format(key: str, value: Any) -> Mapping[str, Any] | None:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    if kind == "json_schema":
        return schema_of(f"{key}.json_schema", value.get("json_schema"))
    raise RequestError(f"body.{key} must have the type text, json_object or json_schema, and is {short(value)}", key)


def _structured_outputs(key: str, value: Any) -> Mapping[str, Any] | None:
    given = (
        {name: setting for name, setting in value.items() if setting is not None} if isinstance(value, Mapping) else {}
    )
    if given.pop("json_object", False):
        given["json"] = {"type": "object"}
    given = {name: setting for name, setting in given.items() if setting is not False}  # options that are off
    if len(given) != 1 or not given.keys() <= _STRUCTURED.keys():
        raise RequestError(f"body.{key} must have one of json, choice, regex and grammar, and is {short(value)}", key)
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
        said = f"body.{key} must be {wanted}, and is of type {type_name(value)} ({short(value)})"
        raise RequestError(said, key.partition(".")[0])
    return {kind: value}


# Requests out.


def written_sampling(sampling: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    """Sampling as a body has it."""
    written: dict[str, Any] = {}
    for name, value in sampling.items():
        if name == "max_tokens" and chat:
            written["max_completion_tokens"] = value
        elif name == "logprobs" and chat:
            written |= {"logprobs": True, "top_logprobs": value}
        else:
            written[name] = value
    return written


def written_output(output: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an answer is held to as a body has it."""
    if not output:
        return {}
    if "schema" in output:
        described = {"name": "output", "schema": output["schema"]}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    return {"structured_outputs": dict(output)}


# Answers out.


def text_of_output(output: Any) -> str:
    """An output as text; what is none is JSON text."""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def choices_of(answered: Answered, success: Success, *, echo: bool = False) -> list[Choice]:
    """A row's answers, as many as it asked for; with ``echo`` their tokens are behind those of the prompt, where these are known.

    A record tells of a single answer without a list, and of nothing that none of several has. A row that was tried again with
    another number of answers is one choice, without what cannot be told of it.
    """
    record, output = answered.record, success.output
    reasoning, tokens, stop = record.get("reasoning"), record.get("logprobs"), record.get("stop_reason")
    if isinstance(output, list) and (count := answered.asked.samples) > 1:
        reasons = (record.get("details") or EMPTY).get("finish_reasons") or [success.finish_reason] * count
        told = [reasons, *([None] * count if value is None else value for value in (output, reasoning, tokens, stop))]
        if all(isinstance(value, list) and len(value) == count for value in told):
            return [
                Choice(text_of_output(each), reason_of(reason), thought, given if echo else of_answer(given), by)
                for reason, each, thought, given, by in zip(*told, strict=True)
            ]
    alone = tokens is not None and all(isinstance(token, dict) for token in tokens)
    thought = reasoning if isinstance(reasoning, str) else None
    given = None if not alone else tokens if echo else of_answer(tokens)
    return [
        Choice(
            text_of_output(output),
            reason_of(success.finish_reason),
            thought,
            given,
            stop if isinstance(stop, str) else None,
        )
    ]


def reason_of(reason: str | None) -> str:
    """Why an answer ended, in OpenAI's words."""
    return reason if reason in _FINISH else "stop"


def usage_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a row took, as completions have it."""
    usage = record["usage"]
    asked, given = usage["prompt_tokens"], usage["completion_tokens"]
    return _usage(asked, given, asked + given)


def _usage(asked: Any, given: Any, together: Any) -> dict[str, Any]:
    return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": together}


# The holes of what most rows are answered with: see ``lines.PlainLines``, which fills them.
INDEX, CREATED, MODEL = hole("index"), hole("created"), hole("model")
CHOICE = Choice(hole("text"), hole("reason"), None, None)
USAGE = _usage(hole("asked"), hole("given"), hole("together"))
