"""A row's rendered prompt in; the line of an OpenAI-batch request file that asks for the same out.

vLLM's ``run-batch`` accepts such lines for chat prompts. Text prompts get the URL ``/v1/completions``, which OpenAI's
batch takes and ``run-batch`` of vLLM 0.32 does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.types import Row
from llmbatch.prompt.base import Rendered


def to_request_line(
    row: Row,
    rendered: Rendered,
    model: str | None,
    sampling: Mapping[str, Any],
    output: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The request as JSON. ``sampling`` is all that holds for this row; ``output`` is the job's, where the row has none.

    A LoRA adapter is named as the model, as vLLM's server has it. The id becomes text.
    """
    prompt = rendered.prompt
    body: dict[str, Any] = {}
    if name := rendered.lora or model:
        body["model"] = name
    chat = prompt.messages is not None
    if prompt.messages is not None:
        body["messages"] = list(prompt.messages)
        if prompt.prefill:
            body["messages"].append({"role": "assistant", "content": prompt.prefill})
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
    else:
        body["prompt"] = f"{prompt.text}{prompt.prefill}"
    for name, value in sampling.items():
        if name == "max_tokens" and chat:
            body["max_completion_tokens"] = value
        elif name == "logprobs" and chat:
            body["logprobs"] = True
            body["top_logprobs"] = value
        else:
            body[name] = value
    if wanted := rendered.output or output:
        body |= _constraint(wanted)
    url = "/v1/chat/completions" if chat else "/v1/completions"
    return {"custom_id": str(row.id), "method": "POST", "url": url, "body": body}


def _constraint(output: Mapping[str, Any]) -> dict[str, Any]:
    if "schema" in output:
        return {
            "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": output["schema"]}}
        }
    return {"structured_outputs": dict(output)}
