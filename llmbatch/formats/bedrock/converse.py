"""Bedrock's Converse bodies, which Amazon Nova's are too, both ways."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from llmbatch.core.quick_json import hole
from llmbatch.core.types import Rendered
from llmbatch.core.words import short, type_name
from llmbatch.formats.bedrock.base import BodyError, Family, Reply, blocks_text, chat_prompt, sampling_of

_SAMPLING = {
    "maxTokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "top_p": "top_p",
    "topK": "top_k",
    "top_k": "top_k",
    "stopSequences": "stop",
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "schemaVersion": (),
    "requestMetadata": (),
    "performanceConfig": (),
    "serviceTier": (),
    "additionalModelRequestFields": ({},),
    "additionalModelResponseFieldPaths": ([],),
    "promptVariables": ({},),
    "toolConfig": ({},),
}
_PARTS = ("messages", "system", "inferenceConfig", "outputConfig")
_OWN = {"schemaVersion", "inferenceConfig", "outputConfig", "toolConfig", "additionalModelRequestFields"}


def _block(block: Any) -> str | None:
    if isinstance(block, dict) and len(block) == 1:
        if isinstance(block.get("text"), str):
            return str(block["text"])
        if "cachePoint" in block:  # what a cache keeps changes no answer
            return None
    seen = ", ".join(map(short, block)) if isinstance(block, dict) else f"a value of type {type_name(block)}"
    raise ValueError(f"a block with {seen or 'nothing in it'}")


def _read(body: Mapping[str, Any], _adapters: Collection[str]) -> Rendered:
    sampling_of({key: value for key, value in body.items() if key not in _PARTS}, {}, "modelInput", _NEUTRAL)
    system, inference = body.get("system"), body.get("inferenceConfig")
    if inference is not None and not isinstance(inference, Mapping):
        raise BodyError(f"modelInput.inferenceConfig must be an object, and is of type {type_name(inference)}")
    said = None if system is None else blocks_text(system, "modelInput.system", _block)
    prompt = chat_prompt(said, body.get("messages"), _block)
    output = _output(body.get("outputConfig"))
    if output is not None and prompt.prefill:
        raise BodyError("modelInput.outputConfig cannot be combined with a last message of the assistant's")
    return Rendered(prompt, sampling_of(inference or {}, _SAMPLING, "modelInput.inferenceConfig"), output)


def _output(config: Any) -> Mapping[str, Any] | None:
    if not config:
        return None
    if not isinstance(config, Mapping) or config.keys() != {"textFormat"}:
        raise BodyError(f"modelInput.outputConfig must have textFormat alone, and is {short(config)}")
    form = config["textFormat"]
    structure = form.get("structure") if isinstance(form, Mapping) else None
    described = structure.get("jsonSchema") if isinstance(structure, Mapping) else None
    text = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(form, Mapping) or form.get("type") != "json_schema" or not isinstance(text, str):
        raise BodyError(
            'modelInput.outputConfig.textFormat must be {"type": "json_schema", "structure": {"jsonSchema": {"schema": TEXT}}}, '
            f"and is {short(form)}"
        )
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise BodyError(
            f"modelInput.outputConfig.textFormat.structure.jsonSchema.schema is not JSON: {error}"
        ) from None
    if not isinstance(schema, dict):
        raise BodyError(
            "modelInput.outputConfig.textFormat.structure.jsonSchema.schema is no JSON Schema: it is no object"
        )
    return {"schema": schema}


def _write(reply: Reply) -> dict[str, Any]:
    asked, given = reply.usage["prompt_tokens"], reply.usage["completion_tokens"]
    reason = reply.reason("max_tokens", "end_turn" if reply.stop is None else "stop_sequence")
    return _answer(reply.text, reason, asked, given, asked + given)


def _plain(cut: bool) -> dict[str, Any]:
    return _answer(hole("text"), "max_tokens" if cut else "end_turn", hole("asked"), hole("given"), hole("together"))


def _answer(text: str, reason: str, asked: Any, given: Any, together: Any) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": reason,
        "usage": {"inputTokens": asked, "outputTokens": given, "totalTokens": together},
        "metrics": {"latencyMs": 0},  # required, and of a row in a batch nobody knows it
    }


def _fits(body: Mapping[str, Any]) -> bool:
    if "messages" not in body or "anthropic_version" in body:
        return False
    first = body["messages"][0] if isinstance(body["messages"], list) and body["messages"] else None
    blocks = first.get("content") if isinstance(first, Mapping) else None
    plain = isinstance(blocks, list) and blocks and isinstance(blocks[0], Mapping) and "type" not in blocks[0]
    return bool(_OWN & body.keys()) or bool(plain)


CONVERSE = Family(_fits, _read, _write, _plain)
