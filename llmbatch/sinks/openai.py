"""Sealed parts in, ``results.openai.jsonl`` out: the output format of OpenAI's Batch API, for tools that read that.

A line has a ``response`` where the record is ok and else an ``error``, never both; what else is known of a record that is not
ok is in ``results.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.files import atomic_write
from llmbatch.folder.records import parse, part_lines
from llmbatch.sinks.base import Origin


def write_openai(parts: Sequence[Path], folder: Path, origin: Origin) -> Path:
    """Lines in input order; ``custom_id`` is the record's id as text. An output that is not text becomes JSON text."""
    path = folder / "results.openai.jsonl"
    atomic_write(path, _lines(parts, origin))
    return path


def _lines(parts: Sequence[Path], origin: Origin) -> Iterator[bytes]:
    for record in map(parse, part_lines(parts)):
        request = f"llmbatch-{record['index']}"
        ok = record["status"] == "ok"
        error = record.get("error") or {"kind": record["status"], "message": ""}
        line = {
            "id": request,
            "custom_id": str(record["id"]),
            "response": {"status_code": 200, "request_id": request, "body": _body(record, origin)} if ok else None,
            "error": None if ok else {"code": error["kind"], "message": error["message"]},
        }
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _body(record: dict[str, Any], origin: Origin) -> dict[str, Any]:
    output, usage = record["output"], record["usage"]
    outputs = output if origin.samples > 1 and isinstance(output, list) else [output]
    choice = _chat_choice if origin.chat else _text_choice
    return {
        "id": f"{'chatcmpl' if origin.chat else 'cmpl'}-{record['index']}",
        "object": "chat.completion" if origin.chat else "text_completion",
        "created": origin.created,
        "model": origin.model,
        "choices": [{"index": i, **choice(_text(o), record)} for i, o in enumerate(outputs)],
        "usage": {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]},
        },
    }


def _chat_choice(text: str, record: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if "reasoning" in record:
        message["reasoning"] = record["reasoning"]
    tokens = record.get("logprobs")
    logprobs = None if tokens is None else {"content": [_token(token) for token in tokens]}
    return {"message": message, "logprobs": logprobs, "finish_reason": record["finish_reason"]}


def _text_choice(text: str, record: dict[str, Any]) -> dict[str, Any]:
    tokens = record.get("logprobs")
    logprobs = None
    if tokens is not None:
        logprobs = {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in tokens],
        }
    return {"text": text, "logprobs": logprobs, "finish_reason": record["finish_reason"]}


def _token(token: dict[str, Any]) -> dict[str, Any]:
    return {
        "token": token["token"],
        "logprob": token["logprob"],
        "bytes": None,
        "top_logprobs": [{"token": t["token"], "logprob": t["logprob"], "bytes": None} for t in token["top"]],
    }


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
