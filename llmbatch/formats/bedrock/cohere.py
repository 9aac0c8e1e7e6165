"""Cohere's text bodies, both ways. Of its answers only the text is known to be as the service has it."""

from __future__ import annotations

from llmbatch.formats.bedrock.base import Reply, prompt_family

_SAMPLING = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "p": "top_p",
    "k": "top_k",
    "stop_sequences": "stop",
}
_NEUTRAL = {"num_generations": (1,), "return_likelihoods": ("NONE",), "stream": (False,), "truncate": ("NONE",)}


def _write(reply: Reply) -> dict[str, object]:
    return {"generations": [{"text": reply.text, "finish_reason": reply.reason("MAX_TOKENS", "COMPLETE")}]}


COHERE = prompt_family(_SAMPLING, _write, _NEUTRAL)
