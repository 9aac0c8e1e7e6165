"""``/v1/completions``: a body in, what it asks for out; a row's answers in, a ``text_completion`` out.

A prompt is a text, or token ids, or a list of either; with several prompts, or ``n``, the choices of the first prompt come first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from llmbatch.core.logprobs import ASKED, is_of_prompt
from llmbatch.core.types import Prompt, Rendered
from llmbatch.core.words import is_encodable, type_name
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.body import (
    CHOICE,
    CREATED,
    INDEX,
    MODEL,
    USAGE,
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
_NOTHING: Mapping[str, Any] = {}


def read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for. Raises ``RequestError``."""
    first, *more = prompts_of(body["prompt"], "prompt")
    echo = body.get("echo")
    if echo not in (None, True, False):
        raise RequestError(f"body.echo is of type {type_name(echo)}, and must be true or false", "echo")
    sampling = sampling_of({**body, "max_tokens": 1} if _is_prompt_alone(body) else body, _OWN)
    if echo and "logprobs" in sampling:
        sampling = {**sampling, ASKED: sampling["logprobs"]}
    elif echo and first.ids is not None:
        raise RequestError(
            "body.echo = true is not supported here for a prompt of token ids without logprobs: give the prompt as text",
            "echo",
        )
    return Rendered(first, sampling, output_of(body), adapter_of(body, adapters), more=tuple(more))


def _is_prompt_alone(body: Mapping[str, Any]) -> bool:
    """Whether only what is known of the prompt is asked for. An engine makes one token at least, which is left out then."""
    return bool(body.get("echo")) and body.get("max_tokens") == 0


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
    body = answered.row.get("body")
    asked = body if isinstance(body, Mapping) and body.get("echo") else _NOTHING
    choices = choices_of(answered, success, echo=bool(asked))
    before, alone = _echoed(asked, len(choices)), _is_prompt_alone(asked)
    written = [_choice(index, each, next(before), alone=alone) for index, each in enumerate(choices)]
    record = answered.record
    return _completion(record["index"], answered.created, answered.model, written, usage_of(record))


def plain(*, cut: bool) -> dict[str, Any]:  # noqa: ARG001 - its reason is in a hole
    """The same with holes, of a row that is answered with one text and nothing more, its prompt neither."""
    return _completion(INDEX, CREATED, MODEL, [_choice(0, CHOICE, "", alone=False)], USAGE)


def _completion(index: Any, created: Any, model: Any, choices: Sequence[Any], usage: Any) -> dict[str, Any]:
    return {
        "id": f"cmpl-{index}",
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _echoed(asked: Mapping[str, Any], count: int) -> Iterator[str | None]:
    """What stands before each of so many choices: its prompt, where the row asked for that. None: what its tokens say."""
    prompt = asked.get("prompt", "")
    texts = prompt if isinstance(prompt, list) and not is_ids(prompt) else [prompt]
    each = max(1, count // len(texts))
    found = (texts[min(index // each, len(texts) - 1)] for index in range(count))
    return (text if isinstance(text, str) else None for text in found)


def _choice(index: int, choice: Choice, before: str | None, *, alone: bool) -> dict[str, Any]:
    tokens = choice.tokens
    own = [] if tokens is None else [token for token in tokens if is_of_prompt(token)]
    if before is None:
        before = "".join(token["token"] for token in own)
    said = None if tokens is None else _logprobs(own if alone else tokens)
    text = before if alone else f"{before}{choice.text}"
    return {"index": index, "text": text, "logprobs": said, "finish_reason": choice.finish_reason} | choice.more


def _logprobs(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    texts = [token["token"] for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [
            None if token["logprob"] is None else {top["token"]: top["logprob"] for top in token["top"]}
            for token in tokens
        ],
        "text_offset": list(accumulate(map(len, texts), initial=0))[:-1],
    }
