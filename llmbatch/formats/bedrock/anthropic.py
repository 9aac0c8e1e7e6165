"""Anthropic's messages on Bedrock, both ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmbatch.core.quick_json import hole
from llmbatch.core.types import Rendered
from llmbatch.core.words import short
from llmbatch.formats.bedrock.base import BodyError, Family, Reply, blocks_text, chat_prompt, sampling_of

_SAMPLING = {
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    **{name: name for name in ("temperature", "top_p", "top_k")},
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "anthropic_version": (),
    "metadata": (),
    "stream": (False,),
    "tools": ([],),
    "thinking": ({"type": "disabled"},),
}


def _block(block: Any) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    raise ValueError(f"a block of the type {short(kind)}")


def _read(body: Mapping[str, Any], _adapters: Collection[str]) -> Rendered:
    system = body.get("system")
    said = None if system is None else blocks_text(system, "modelInput.system", _block)
    prompt = chat_prompt(said, body.get("messages"), _block)
    settings = {key: value for key, value in body.items() if key not in ("system", "messages")}
    sampling = sampling_of(settings, _SAMPLING, "modelInput", _NEUTRAL)
    if "max_tokens" not in sampling:
        raise BodyError("modelInput.max_tokens is missing")
    return Rendered(prompt, sampling)


def _write(reply: Reply) -> dict[str, Any]:
    number, usage = f"{reply.answered.record['index']:012d}", reply.usage
    reason = reply.reason("max_tokens", "end_turn" if reply.stop is None else "stop_sequence")
    return _message(
        number, reply.model, reply.text, reason, reply.stop, usage["prompt_tokens"], usage["completion_tokens"]
    )


def _plain(cut: bool) -> dict[str, Any]:
    reason = "max_tokens" if cut else "end_turn"
    return _message(hole("number"), hole("model"), hole("text"), reason, None, hole("asked"), hole("given"))


def _message(
    number: str, model: str, text: str, reason: str, stop: str | None, asked: Any, given: Any
) -> dict[str, Any]:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": reason,
        "stop_sequence": stop,
        "usage": {"input_tokens": asked, "output_tokens": given},
    }


ANTHROPIC = Family(lambda body: "anthropic_version" in body, _read, _write, _plain)
