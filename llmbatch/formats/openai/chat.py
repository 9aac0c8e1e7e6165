"""``/v1/chat/completions``: a body in, what it asks for out; a row's answers in, a ``chat.completion`` out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmbatch.core.messages import images_in, ready_messages, text_of
from llmbatch.core.types import Message, Prompt, Rendered
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.body import (
    CHOICE,
    CREATED,
    INDEX,
    MODEL,
    NEUTRAL,
    USAGE,
    Choice,
    RequestError,
    adapter_of,
    choices_of,
    output_of,
    sampling_of,
    usage_of,
    written_output,
    written_sampling,
)
from llmbatch.formats.outcome import Success

_OWN = frozenset({"messages", "prompt"})
_CONTINUED = {**NEUTRAL, "continue_final_message": (True,), "add_generation_prompt": (True, False)}


def read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for. Raises ``RequestError``."""
    prompt = chat_prompt(body)
    neutral = _CONTINUED if body.get("continue_final_message") else NEUTRAL
    return Rendered(prompt, sampling_of(body, _OWN, neutral=neutral), output_of(body), adapter_of(body, adapters))


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a body with messages. Raises ``RequestError``."""
    ready = ready_messages(body["messages"])
    if isinstance(ready, str):
        raise RequestError(f"body.messages: {ready}", "messages")
    if body.get("continue_final_message"):
        return _with_prefill(ready)
    return Prompt(messages=ready, images=images_in(ready))


def _with_prefill(messages: tuple[Message, ...]) -> Prompt:
    if messages[-1]["role"] != "assistant" or len(messages) == 1:
        raise RequestError(
            "continue_final_message needs a last message of the assistant's, after another message", "messages"
        )
    return Prompt(messages[:-1], prefill=text_of(messages[-1]["content"]), images=images_in(messages[:-1]))


def write(rendered: Rendered) -> dict[str, Any]:
    """The body that asks for this, without the model."""
    prompt = rendered.prompt
    messages: dict[str, Any] = {"messages": list(prompt.messages or ())}
    if prompt.prefill:
        start = {"role": "assistant", "content": prompt.prefill}
        messages = {"messages": [*messages["messages"], start]}
        messages |= {"continue_final_message": True, "add_generation_prompt": False}
    return messages | written_sampling(rendered.sampling, chat=True) | written_output(rendered.output)


def answer(answered: Answered, success: Success) -> dict[str, Any]:
    """The body that answers a row."""
    record = answered.record
    choices = [_choice(index, each) for index, each in enumerate(choices_of(answered, success))]
    return _completion(record["index"], answered.created, answered.model, choices, usage_of(record))


def plain(*, cut: bool) -> dict[str, Any]:  # noqa: ARG001 - its reason is in a hole
    """The same with holes, of a row that is answered with one text and nothing more."""
    return _completion(INDEX, CREATED, MODEL, [_choice(0, CHOICE)], USAGE)


def _completion(index: Any, created: Any, model: Any, choices: Sequence[Any], usage: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{index}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.text}
    if choice.reasoning is not None:
        message["reasoning"] = choice.reasoning
    logprobs = None if choice.tokens is None else {"content": list(map(_token, choice.tokens))}
    said = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}
    return said | choice.more


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "token": token["token"],
        "logprob": token["logprob"],
        "bytes": None,
        "top_logprobs": [{"token": t["token"], "logprob": t["logprob"], "bytes": None} for t in token["top"]],
    }
