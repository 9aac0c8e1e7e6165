"""Ready-made chat messages from a row in; the same messages out, checked, or the words for what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.types import Message
from llmbatch.core.words import is_encodable, near, short, type_name

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_KEYS = frozenset({"role", "content", "name"})


def ready_messages(value: object) -> tuple[Message, ...] | str:
    """The messages that a row brings, or what is wrong, in words.

    A message is ``{role, content}``, with ``name`` where a chat template wants it. A content in text parts becomes one
    text, its parts on lines of their own, as vLLM joins them. Other keys may be there only if they are null or empty.
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
    if not isinstance(message, Mapping):
        return f"must be an object with role and content, not of type {type_name(message)}"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES if isinstance(role, str) else True:
        hint = near(role, ROLES) if isinstance(role, str) else ""
        return f"has the role {short(role)}{hint}; known are {', '.join(sorted(ROLES))}"
    for key in message.keys() - _KEYS:
        if message[key]:
            return f"has the key {short(key)}, which is not supported (tool calls and media are not)"
    if content.__class__ is not str:
        content = _joined(content)
        if content is None:
            seen = type_name(message.get("content"))
            return f"must have a content of text or text parts, not of type {seen} (multimodal input is not supported)"
    if not is_encodable(content):
        return "holds half a surrogate pair, which is no character"
    plain = {"role": role, "content": content}
    if name := message.get("name"):
        plain["name"] = name
    return plain


def _joined(content: object) -> str | None:
    """Text parts as one text; ``None`` where there is anything but text in them."""
    if isinstance(content, str):
        return str(content)
    if not isinstance(content, (list, tuple)):
        return None
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif (
            isinstance(part, Mapping)
            and part.get("type") in ("text", "input_text")
            and isinstance(part.get("text"), str)
        ):
            texts.append(part["text"])
        else:
            return None
    return "\n".join(texts)
