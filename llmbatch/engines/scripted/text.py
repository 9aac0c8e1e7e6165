"""What the scripted engine reads of a request, and says: bytes for tokens."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llmbatch.core.logprobs import of_prompt
from llmbatch.core.types import (
    Constraint,
    PairIds,
    Prompt,
    Request,
)
from llmbatch.engines.scripted.images import with_digests
from llmbatch.engines.scripted.instance import smallest_instance

_AS_ARRAYS = f"utf-32-{sys.byteorder[0]}e"


def logprobs_of(tokens: bytes) -> list[dict[str, Any]]:
    """Of each byte, by its value alone: a space is the likeliest."""
    return [{"token": chr(byte), "logprob": -abs(byte - 32) / 256, "top": []} for byte in tokens]


def until_stop(answer: bytes, stops: str | Sequence[str] | None) -> tuple[bytes, str | None]:
    """An answer up to the first stop sequence in it, and which that is."""
    each = [stops] if isinstance(stops, str) else stops or ()
    found = [(at, stop) for stop in each if (at := answer.find(stop.encode())) >= 0]
    if not found:
        return answer, None
    at, stop = min(found)
    return answer[:at], stop


def logprobs_of_prompt(ids: Sequence[int], most: int) -> list[dict[str, Any]]:
    """Of a prompt's bytes, with the likeliest of all where one is asked for."""
    first, *others = logprobs_of(bytes(each % 256 for each in ids))
    best = [{"token": " ", "logprob": 0.0}] if most else []
    return of_prompt(first["token"], [{**each, "top": best} for each in others])


def encoded(prompt: Prompt) -> bytes:
    """The ids of a prompt: the bytes of a plain rendering of it (a sequence of ints below 256)."""
    if prompt.messages is None:
        return ((prompt.text or "") + prompt.prefill).encode("utf-8", "replace")
    messages = with_digests(prompt) if prompt.images else prompt.messages
    text = "".join([f"<{m['role']}>{m['content']}{m.get('tool_calls', '')}\n" for m in messages])
    tools = "" if prompt.tools is None else f"<tools>{json.dumps(prompt.tools.offered)}\n"
    return f"{tools}{text}<assistant>{prompt.prefill}".encode("utf-8", "replace")


def ids_of(prompt: Prompt) -> array[int]:
    """The bytes of a prompt as token ids. By way of a text, each of whose characters in UTF-32 is one of the array's numbers."""
    ids = array("I")
    ids.frombytes(encoded(prompt).decode("latin-1").encode(_AS_ARRAYS))
    return ids


def pair_ids(prompt: Prompt) -> PairIds:
    first, second = encoded(Prompt(text=prompt.text)), encoded(Prompt(text=prompt.pair))
    return PairIds(first + second, len(first))


def said_by(request: Request) -> str:
    """What is echoed: the last message, the text, or the one that the token ids are of."""
    prompt = request.prompt
    if prompt.messages is None and prompt.text is None and request.token_ids:
        return bytes(token for token in request.token_ids if token < 256).decode("utf-8", "replace")
    return _last_text(prompt)


def _last_text(prompt: Prompt) -> str:
    if prompt.messages is None:
        return prompt.text or ""
    messages = with_digests(prompt) if prompt.images else prompt.messages
    return str(messages[-1]["content"]) if messages else ""


@lru_cache(maxsize=256)
def constrained(constraint: Constraint) -> str:
    return smallest_instance(constraint)


__all__ = ["constrained", "encoded", "ids_of", "logprobs_of", "logprobs_of_prompt", "pair_ids", "said_by", "until_stop"]
