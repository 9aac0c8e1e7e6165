"""Mistral's text bodies, both ways."""

from __future__ import annotations

from llmbatch.formats.bedrock.base import Reply, prompt_family

_SAMPLING = {name: name for name in ("max_tokens", "temperature", "top_p", "top_k", "stop")}


def _write(reply: Reply) -> dict[str, object]:
    return {"outputs": [{"text": reply.text, "stop_reason": reply.reason("length", "stop")}]}


MISTRAL = prompt_family(_SAMPLING, _write)
