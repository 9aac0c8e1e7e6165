"""Ready-made chat messages from a row in; the same messages out, checked, or the words for what is wrong with them.

A content is one text, or a list of parts where there are images among them: ``{"type": "text", "text": ...}`` and
``{"type": "image_url", "image_url": {"url": ..., "detail": ...}}``, as OpenAI's protocol has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbatch.core.types import Image, Message
from llmbatch.core.words import is_encodable, near, short, type_name

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_KEYS = frozenset({"role", "content", "name"})
_TEXTS = ("text", "input_text")
_IMAGES = ("image_url", "input_image")
_DETAILS = ("auto", "low", "high", "original")


def ready_messages(value: object) -> tuple[Message, ...] | str:
    """The messages that a row brings, or what is wrong, in words.

    A message is ``{role, content}``, with ``name`` where a chat template wants it. A content in text parts becomes one
    text, its parts on lines of their own, as vLLM joins them; one with images stays in parts. Other keys may be there only if they
    are null or empty.
    """
    if not isinstance(value, (list, tuple)):
        return f"must be a list of messages, not of type {type_name(value)}"
    if not value:
        return "has no message"
    messages: list[Message] = []
    for number, message in enumerate(value, 1):
        plain = _plain(message)
        if isinstance(plain, str):
            return f"message {number} of {len(value)} {plain}"
        messages.append(plain)
    return tuple(messages)


def _plain(message: object) -> dict[str, Any] | str:
    if message.__class__ is not dict and not isinstance(message, Mapping):
        return f"must be an object with role and content, not of type {type_name(message)}"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES if isinstance(role, str) else True:
        hint = near(role, ROLES) if isinstance(role, str) else ""
        return f"has the role {short(role)}{hint}; known are {', '.join(sorted(ROLES))}"
    for key, value in message.items():
        if value and key not in _KEYS:
            return f"has the key {short(key)}, which is not supported (tool calls are not)"
    if content.__class__ is not str:
        try:
            content = _joined(content)
        except ValueError as error:
            return str(error)
    if not (is_encodable(content) if isinstance(content, str) else all(map(is_encodable, map(_said, content)))):
        return "holds half a surrogate pair, which is no character"
    plain = {"role": role, "content": content}
    if name := message.get("name"):
        plain["name"] = name
    return plain


def image_part(url: str, detail: str | None = None) -> dict[str, Any]:
    """An image as a part of a message."""
    return {"type": "image_url", "image_url": {"url": url} if detail is None else {"url": url, "detail": detail}}


def images_in(messages: Sequence[Message]) -> tuple[Image, ...]:
    """The images that parts of the messages name, in their order."""
    images: list[Image] = []
    for (
        message
    ) in messages:  # a generator would take twice as long where there are none, and this is done for every row
        if not isinstance(content := message["content"], str):
            images += [Image(part["image_url"]["url"]) for part in content if part["type"] == "image_url"]
    return tuple(images)


def with_parts(messages: Sequence[Message], change: Callable[[str], Mapping[str, Any]]) -> tuple[Message, ...]:
    """The messages with what ``change`` makes of the URL of each image in place of its part."""
    return tuple(
        message
        if isinstance(content := message["content"], str)
        else {
            **message,
            "content": [change(part["image_url"]["url"]) if part["type"] == "image_url" else part for part in content],
        }
        for message in messages
    )


def with_urls(messages: Sequence[Message], urls: Mapping[str, str]) -> tuple[Message, ...]:
    """The messages with other URLs for their images; all else of a part, such as its detail, stays."""
    return tuple(
        message
        if isinstance(content := message["content"], str)
        else {**message, "content": [_with_url(part, urls) for part in content]}
        for message in messages
    )


def text_of(content: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a message's content, its parts on lines of their own; images have none."""
    return content if isinstance(content, str) else "\n".join(p["text"] for p in content if p["type"] == "text")


def _with_url(part: Mapping[str, Any], urls: Mapping[str, str]) -> Mapping[str, Any]:
    if part["type"] != "image_url":
        return part
    image = part["image_url"]
    return {**part, "image_url": {**image, "url": urls.get(image["url"], image["url"])}}


def _joined(content: object) -> str | list[dict[str, Any]]:
    """Text parts as one text, or where there are images among them the parts. Raises ``ValueError``, in words."""
    if isinstance(content, str):
        return str(content)
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"must have a content of text, or of text and image parts, not of type {type_name(content)}")  # noqa: TRY004
    parts = [_part(part) for part in content]
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: object) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _TEXTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if not isinstance(part, Mapping) or kind not in _IMAGES:
        seen = f"of the type {short(kind)}" if isinstance(kind, str) else f"{type_name(part)}"
        raise ValueError(
            f"has a part that is neither text nor an image ({seen}); parts have the type text or image_url"
        )
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, Mapping) else (image, part.get("detail"))
    if not isinstance(url, str) or not url or url.isspace():
        raise ValueError(
            f"has an image without a URL ({short(image)}); the form is "
            '{"type": "image_url", "image_url": {"url": ...}}'
        )
    if detail is not None and detail not in _DETAILS:
        raise ValueError(f"has an image with the detail {short(detail)}; known are {', '.join(_DETAILS)}")
    return image_part(url, detail)


def _said(part: Mapping[str, Any]) -> str:
    return str(part["text"] if part["type"] == "text" else part["image_url"]["url"])
