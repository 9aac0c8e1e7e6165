"""What is asked of a model, by our names, in; a GenerateContentRequest out."""

from __future__ import annotations

from typing import Any

from llmbatch.core.messages import text_of
from llmbatch.core.types import EMPTY, Rendered
from llmbatch.formats.gemini.requests import ENUM, JSON, NAMES


def write_request(rendered: Rendered, model: str | None) -> dict[str, Any]:
    """A text without roles becomes what the user says. Images are written, and not read back."""
    prompt = rendered.prompt
    messages = prompt.messages or ({"role": "user", "content": prompt.text or ""},)
    turns = [*messages, *([{"role": "assistant", "content": prompt.prefill}] if prompt.prefill else [])]
    system = [text_of(message["content"]) for message in turns if message["role"] in ("system", "developer")]
    contents = [
        {"role": "model" if turn["role"] == "assistant" else "user", "parts": _parts(turn["content"])}
        for turn in turns
        if turn["role"] not in ("system", "developer")
    ]
    request: dict[str, Any] = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    if config := _written_config(rendered):
        request["generationConfig"] = config
    if name := rendered.lora or model:
        request["model"] = name
    return request


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [
        {"text": part["text"]} if part["type"] == "text" else {"fileData": {"fileUri": part["image_url"]["url"]}}
        for part in content
    ]


def _written_config(rendered: Rendered) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in rendered.sampling.items():
        if name == "logprobs":
            config |= {"responseLogprobs": True, "logprobs": value}
        elif name == "thinking_token_budget":
            config["thinkingConfig"] = {"thinkingBudget": value}
        else:
            config[NAMES[name]] = [value] if name == "stop" and isinstance(value, str) else value
    for kind, value in (rendered.output or EMPTY).items():
        if kind == "schema":
            config |= {"responseMimeType": JSON, "responseJsonSchema": value}
        elif kind == "choice":
            config |= {"responseMimeType": ENUM, "responseSchema": {"type": "STRING", "enum": list(value)}}
        else:
            config[f"guided{kind.title()}"] = value
    return config
