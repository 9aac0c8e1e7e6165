"""Meta's text bodies, both ways."""

from __future__ import annotations

from llmbatch.formats.bedrock.base import Reply, prompt_family

_SAMPLING = {"max_gen_len": "max_tokens", "temperature": "temperature", "top_p": "top_p"}


def _write(reply: Reply) -> dict[str, object]:
    return {
        "generation": reply.text,
        "prompt_token_count": reply.usage["prompt_tokens"],
        "generation_token_count": reply.usage["completion_tokens"],
        "stop_reason": reply.reason("length", "stop"),
    }


META = prompt_family(_SAMPLING, _write)
