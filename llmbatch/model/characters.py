"""Prompts in; stand-ins for their token ids out, where there is no tokenizer: one for each four bytes of their text.

For English that is about what tokenizers make of it; text in other scripts and code take more tokens or fewer. Equal beginnings
have equal ids, so that what prompts share is seen as it would be with a tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmbatch.core.messages import text_of
from llmbatch.core.types import Failure, Prompt

BYTES = 4


class Characters:
    """Has what a plan needs of a ``Tokenizer``. ``context_length`` is 0, as only a server knows it."""

    context_length = 0

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        """For each prompt with its prefill, in order; a message begins with its role."""
        return [_ids(prompt) for prompt in prompts]

    def decode(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The texts again."""
        return [_text(ids) for ids in batch]


def _text(ids: Sequence[int]) -> str:
    return b"".join(each.to_bytes(BYTES, "big") for each in ids).replace(b"\0", b"").decode("utf-8", "replace")


def _ids(prompt: Prompt) -> list[int]:
    if prompt.ids is not None:
        return list(prompt.ids)
    if prompt.messages is None:
        return _pieces(f"{prompt.text}{prompt.prefill}")
    ids: list[int] = []
    for message in prompt.messages:
        ids += _pieces(f"{message['role']}\n{text_of(message['content'])}")
    return ids + _pieces(prompt.prefill)


def _pieces(text: str) -> list[int]:
    data = text.encode("utf-8", "replace")
    return [int.from_bytes(data[at : at + BYTES].ljust(BYTES, b"\0"), "big") for at in range(0, len(data), BYTES)]


__all__ = ["BYTES", "Characters"]
