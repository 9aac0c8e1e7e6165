"""``/v1/completions``: a body in, what it asks for out; a row's answers in, a ``text_completion`` out.

A prompt is a text, or token ids, or a list of either; with several prompts, or ``n``, the choices of the first prompt come first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from typing import Any

from llmbatch.core.types import Prompt, Rendered
from llmbatch.core.words import is_encodable, type_name
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.body import (
    Choice,
    RequestError,
    adapter_of,
    choices_of,
    is_ids,
    output_of,
    sampling_of,
    usage_of,
    written_output,
    written_sampling,
)
from llmbatch.formats.outcome import Success

MOST_PROMPTS = 2048
"""In one request: as many texts as OpenAI takes for embeddings. All of a row's answers are in memory at a time."""
_OWN = frozenset({"messages", "prompt", "echo"})
_NO_LIKELIHOODS = (
    "log-probabilities of a prompt are not given in this format; a job whose program is score gives them, and lm-eval's "
    "--model llmbatch for its tasks of likelihoods"
)


def read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for. Raises ``RequestError``."""
    first, *more = prompts_of(body["prompt"], "prompt")
    sampling, echo = sampling_of(body, _OWN), body.get("echo")
    if echo not in (None, True, False):
        raise RequestError(f"body.echo is of type {type_name(echo)}, and must be true or false", "echo")
    if echo and (first.ids is not None or "logprobs" in sampling):
        what = _NO_LIKELIHOODS if "logprobs" in sampling else "the prompt is token ids"
        raise RequestError(f"body.echo = true is not supported here: {what}", "echo")
    return Rendered(first, sampling, output_of(body), adapter_of(body, adapters), more=tuple(more))


def prompts_of(value: Any, key: str) -> list[Prompt]:
    """The prompts that a body's key holds, one at least. Raises ``RequestError``."""
    if isinstance(value, str):
        return [_text(value, key)]
    if is_ids(value):
        return [Prompt(ids=tuple(value))]
    if isinstance(value, list) and 0 < len(value) <= MOST_PROMPTS:
        if all(isinstance(each, str) for each in value):
            return [_text(each, key) for each in value]
        if all(map(is_ids, value)):
            return [Prompt(ids=tuple(each)) for each in value]
    seen = f"{len(value):,} of them" if isinstance(value, list) and len(value) > MOST_PROMPTS else type_name(value)
    raise RequestError(
        f"body.{key} must be one text, or token ids, or a list of up to {MOST_PROMPTS:,} of these, and is of type {seen}",
        key,
    )


def _text(text: str, key: str) -> Prompt:
    if not is_encodable(text):
        raise RequestError(f"body.{key} holds half a surrogate pair, which is no character", key)
    return Prompt(text=text)


def write(rendered: Rendered) -> dict[str, Any]:
    """The body that asks for this, without the model."""
    prompts = written_prompts(rendered)
    return (
        {"prompt": prompts}
        | written_sampling(rendered.sampling, chat=False)
        | written_output(rendered.output)
    )  # fmt: skip


def written_prompts(rendered: Rendered) -> Any:
    """The prompts as a body's key holds them."""
    each = [
        f"{prompt.text}{prompt.prefill}" if prompt.ids is None else list(prompt.ids)
        for prompt in (rendered.prompt, *rendered.more)
    ]
    return each if rendered.more else each[0]


def answer(answered: Answered, success: Success) -> dict[str, Any]:
    """The body that answers a row."""
    choices = choices_of(answered, success)
    before = _echoed(answered, len(choices))
    return {
        "id": f"cmpl-{answered.record['index']}",
        "object": "text_completion",
        "created": answered.created,
        "model": answered.model,
        "choices": [_choice(index, each, next(before)) for index, each in enumerate(choices)],
        "usage": usage_of(answered.record),
    }


def _echoed(answered: Answered, count: int) -> Iterator[str]:
    """What stands before each of so many choices: its prompt, where the row asked for that."""
    body = answered.row.get("body")
    asked = body.get("prompt") if isinstance(body, Mapping) and body.get("echo") else None
    texts = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else [""]
    each = max(1, count // len(texts))
    return (texts[min(index // each, len(texts) - 1)] for index in range(count))


def _choice(index: int, choice: Choice, before: str) -> dict[str, Any]:
    text = f"{before}{choice.text}"
    logprobs = None if choice.tokens is None else _logprobs(choice.tokens)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _logprobs(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    texts = [token["token"] for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in tokens],
        "text_offset": list(accumulate(map(len, texts), initial=0))[:-1],
    }
