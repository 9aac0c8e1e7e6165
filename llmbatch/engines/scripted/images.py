"""A prompt with images in; its messages as text out, an image in them as the digest of its bytes: what the scripted engine sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.types import Message, Prompt

_DIGITS = 16  # of a digest, in what an image is written as


def with_digests(prompt: Prompt) -> tuple[Message, ...]:
    """Each content as one text. An image has the same length, and so number of tokens, whatever it is."""
    digests = {image.url: image.sha256[:_DIGITS].ljust(_DIGITS, "0") for image in prompt.images}
    return tuple(
        message
        if isinstance(content := message["content"], str)
        else {**message, "content": "".join(_written(part, digests) for part in content)}
        for message in prompt.messages or ()
    )


def _written(part: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    if part["type"] == "text":
        return str(part["text"])
    return f"[image {digests.get(part['image_url']['url'], '0' * _DIGITS)}]"
