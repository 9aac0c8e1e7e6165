"""Amazon Titan's text bodies, both ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from llmbatch.core.types import Rendered
from llmbatch.core.words import type_name
from llmbatch.formats.bedrock.base import BodyError, Family, Reply, prompt_of, sampling_of, with_holes

_SAMPLING = {"maxTokenCount": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}


def _read(body: Mapping[str, Any], _adapters: Collection[str]) -> Rendered:
    given = body.get("textGenerationConfig")
    if given is not None and not isinstance(given, Mapping):
        raise BodyError(f"modelInput.textGenerationConfig must be an object, and is of type {type_name(given)}")
    sampling_of(
        {key: v for key, v in body.items() if key not in ("inputText", "textGenerationConfig")}, {}, "modelInput"
    )
    return Rendered(
        prompt_of(body, "inputText"), sampling_of(given or {}, _SAMPLING, "modelInput.textGenerationConfig")
    )


def _write(reply: Reply) -> dict[str, Any]:
    result = {
        "tokenCount": reply.usage["completion_tokens"],
        "outputText": reply.text,
        "completionReason": reply.reason("LENGTH", "FINISH"),
    }
    return {"inputTextTokenCount": reply.usage["prompt_tokens"], "results": [result]}


TITAN = Family(lambda body: "inputText" in body, _read, _write, partial(with_holes, _write))
