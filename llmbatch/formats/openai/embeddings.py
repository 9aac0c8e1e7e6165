"""``/v1/embeddings``: a body in, what it asks for out; a row's vectors in, a list of embeddings out.

The input is a text, or token ids, or a list of either; a chat, as vLLM's server takes it, is one text. A job for vectors is one
with the program ``embed``.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Any

from llmbatch.core.types import Prompt, Rendered
from llmbatch.core.words import is_of, near, short
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.body import IGNORED, RequestError, adapter_of
from llmbatch.formats.openai.chat import chat_prompt
from llmbatch.formats.openai.completions import prompts_of, written_prompts
from llmbatch.formats.outcome import Success

_OWN = frozenset({"input", "encoding_format", "dimensions"})


def read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for. Raises ``RequestError``."""
    for key, value in body.items():
        if value is not None and key not in (*IGNORED, *_OWN, "messages"):
            raise RequestError(f"body.{key} is not supported for an embedding{near(key, _OWN)}", key)
    dimensions, encoding = body.get("dimensions"), body.get("encoding_format")
    if dimensions is not None and not (is_of(dimensions, "integer") and dimensions > 0):
        raise RequestError(f"body.dimensions is {short(dimensions)}, and must be a whole number above 0", "dimensions")
    if encoding not in (None, "float", "base64"):
        raise RequestError(f"body.encoding_format is {short(encoding)}, and must be float or base64", "encoding_format")
    first, *more = _prompts(body)
    for prompt in (first, *more):
        if prompt.text is not None and (not prompt.text or prompt.text.isspace()):
            raise RequestError("body.input is blank" if not more else "body.input has a text that is blank", "input")
    return Rendered(
        first, lora=adapter_of(body, adapters), vector=True, dimensions=dimensions, more=tuple(more)
    )  # fmt: skip


def _prompts(body: Mapping[str, Any]) -> list[Prompt]:
    messages, given = body.get("messages"), body.get("input")
    if (messages is None) == (given is None):
        seen = "neither" if messages is None else "both"
        raise RequestError(f"the body must have either input or messages, and has {seen}", "input")
    return prompts_of(given, "input") if messages is None else [chat_prompt(body)]


def write(rendered: Rendered) -> dict[str, Any]:
    """The body that asks for this, without the model."""
    messages = rendered.prompt.messages
    asked: dict[str, Any] = {"messages": list(messages)} if messages else {"input": written_prompts(rendered)}
    return asked if rendered.dimensions is None else {**asked, "dimensions": rendered.dimensions}


def answer(answered: Answered, success: Success) -> dict[str, Any]:
    """The body that answers a row."""
    body = answered.row.get("body")
    encoded = isinstance(body, Mapping) and body.get("encoding_format") == "base64"
    output, tokens = success.output, answered.record["usage"]["prompt_tokens"]
    vectors = output if output and isinstance(output[0], list) else [output]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if encoded else vector}
            for index, vector in enumerate(vectors)
        ],
        "model": answered.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _base64(vector: list[float]) -> str:
    """Numbers of 32 bits, the lowest byte first."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
