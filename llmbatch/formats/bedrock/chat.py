"""Chat bodies in OpenAI's form, which OpenAI's own models, Qwen and others take on Bedrock, both ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from llmbatch.core.types import Failure, Rendered
from llmbatch.formats.base import wire_format
from llmbatch.formats.bedrock.base import BodyError, Family, Reply


def _read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    read = wire_format("openai").read({"custom_id": "", "body": body}, adapters)
    if isinstance(read, Failure):
        raise BodyError(read.message.replace("body.", "modelInput."), read.kind)
    if read is None:  # never: a request of OpenAI's brings its prompt
        raise BodyError("modelInput has no messages")
    return read


def _write(reply: Reply) -> dict[str, Any]:
    told = {**reply.answered.record, "status": "ok", "output": reply.output}
    body: dict[str, Any] = wire_format("openai").result(replace(reply.answered, record=told))["response"]["body"]
    return {**body, "model": reply.model}


CHAT = Family(lambda body: "messages" in body, _read, _write)
