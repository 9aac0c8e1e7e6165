"""An error reply in; what the server says of it, for a person, and what it means, out."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from llmbatch.core.words import clip
from llmbatch.engines.http.base import Reply

_LONGEST = 500
_TOO_LONG = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "input_tokens", "input_text", "string_above_max_length"}
)
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class ServerError(NamedTuple):
    """What a server says went wrong."""

    message: str
    code: str = ""
    too_long: bool = False


def error_of(reply: Reply) -> ServerError:
    """The error in a reply, in whichever of the usual shapes it comes."""
    try:
        data = json.loads(reply.body)
    except ValueError:
        return ServerError("", too_long=reply.status == 413)
    if isinstance(data, list) and data:
        data = data[0]
    error = data.get("error", data) if isinstance(data, dict) else {}
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    message = error.get("message") or error.get("detail") or error.get("msg") or ""
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    names = {str(error.get(key)) for key in ("code", "type", "param")}
    # vLLM and others have no code for it
    too_long = bool(names & _TOO_LONG) or reply.status == 413 or "context length" in text
    return ServerError(text, str(error.get("code") or error.get("type") or ""), too_long)


def words(reply: Reply) -> str:
    """The server's words, on one line."""
    said = error_of(reply).message or _page(reply)
    return clip(" ".join(said.split()), _LONGEST) or "it does not say why"


def is_page(reply: Reply) -> bool:
    """Whether it is a page for a browser."""
    return "html" in reply.headers.get("content-type", "") or reply.body.lstrip()[:1] == b"<"


def is_without_quota(reply: Reply) -> bool:
    """Whether the account has nothing left to pay with: waiting does not help, though the status says to wait."""
    return reply.status == 429 and error_of(reply).code in _NO_QUOTA


def data_of(reply: Reply) -> Any:
    """The JSON of a reply; ``None`` where it is none."""
    try:
        return json.loads(reply.body)
    except ValueError:
        return None


def _page(reply: Reply) -> str:
    return "an HTML page" if is_page(reply) else reply.body[:_LONGEST].decode("utf-8", "replace")


__all__ = ["ServerError", "data_of", "error_of", "is_page", "is_without_quota", "words"]
