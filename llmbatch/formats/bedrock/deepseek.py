"""DeepSeek's text bodies, which Writer's are too, both ways."""

from __future__ import annotations

from llmbatch.formats.bedrock.base import Reply, prompt_family

_SAMPLING = {name: name for name in ("max_tokens", "temperature", "top_p", "stop")}


def _write(reply: Reply) -> dict[str, object]:
    return {"choices": [{"text": reply.text, "stop_reason": reply.reason("length", "stop")}]}


DEEPSEEK = prompt_family(_SAMPLING, _write)
