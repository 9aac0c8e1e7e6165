"""Records in their JSON form in; what a page shows of them, with every text cut to a length that many of them fit at, out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbatch.core.words import clip

TEXT, MESSAGES, ATTEMPTS = 3000, 12, 8  # characters of a text, messages of a prompt, answers that were sent back
_BYTES = 1_500_000  # that all records together may take

Json = Mapping[str, Any]


@dataclass(slots=True)
class Sample:
    """What a page is told of a run's records. Lengths and attempts are of rows that are chosen evenly.

    ``records`` are those that can be looked through. ``rows`` is how many there are. ``prompts`` says why some have no prompt.
    """

    rows: int = 0
    prompt_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    prompts: str = ""

    @property
    def measured(self) -> int:
        return len(self.prompt_tokens)


def shown(record: Json) -> dict[str, Any]:
    """A record as the page has it: short names, short texts, and nothing where there is nothing."""
    error, usage = record.get("error") or {}, record["usage"]
    history = record.get("history") or ()
    output = record.get("tool_calls") if record["output"] is None else record["output"]
    values: dict[str, Any] = {
        "index": record["index"],
        "id": _cut(str(record["id"])),
        "status": record["status"],
        "kind": error.get("kind", ""),
        "why": _cut(error.get("message", "")),
        "output": "" if output is None else text_of(output),
        "raw": text_of(record["raw"]) if record.get("raw") is not None else "",
        "reasoning": text_of(record["reasoning"]) if record.get("reasoning") else "",
        "history": [_attempt(each) for each in history[-ATTEMPTS:]],
        "before": max(0, len(history) - ATTEMPTS),  # answers that are left out
        "details": text_of(record["details"]) if record.get("details") else "",
        "input": text_of(record["input"]) if record.get("input") else "",
        "attempts": record["attempts"],
        "finish": record.get("finish_reason") or "",
        "tokens": [usage["prompt_tokens"], usage["completion_tokens"], usage["cached_tokens"]],
    }
    return {name: value for name, value in values.items() if value not in ("", [], 0) or name == "index"}


def _attempt(attempt: Json) -> dict[str, Any]:
    step = f", step {attempt['step']}" if attempt["step"] else ""
    sample = f", sample {attempt['sample']}" if attempt["sample"] else ""
    return {
        "name": f"attempt {attempt['attempt']}{step}{sample}",
        "kind": attempt["error"]["kind"],
        "why": _cut(attempt["error"]["message"]),
        "text": _cut(attempt["text"] or ""),
    }


def text_of(value: Any) -> str:
    """A value as text, cut. Of numbers there may be thousands, of which nobody reads more than a few."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Sequence) and len(value) > 16 and all(isinstance(each, float | int) for each in value):
        return f"{len(value):,} numbers: {', '.join(f'{each:.6g}' for each in value[:8])}, …"
    return _cut(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def prompt_of(messages: Iterable[Json] | None, text: str | None, prefill: str = "") -> list[dict[str, str]]:
    """A prompt as the page has it: a role and a text for each message."""
    found = [] if text is None else [{"role": "prompt", "text": _cut(text)}]
    listed = list(messages or ())
    if len(listed) > MESSAGES:
        left = len(listed) - MESSAGES
        listed[1 : -MESSAGES + 1] = [{"role": "…", "content": f"{left} messages are left out here"}]
    found += [{"role": str(each.get("role", "")), "text": _content(each)} for each in listed]
    return [*found, {"role": "start of the answer", "text": _cut(prefill)}] if prefill else found


def _content(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        return _cut("\n".join(_part(part) for part in content))
    if content is None:
        content = {key: value for key, value in message.items() if key != "role"}
    return text_of(content)


def _part(part: Any) -> str:
    """A part of a message. An image is named and not shown: as text it would be all there is room for."""
    if isinstance(part, Mapping):
        if isinstance(text := part.get("text"), str):
            return text
        inner = part.get(str(part.get("type", "")))
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        if isinstance(url, str):
            return f"[{part['type']}: {clip(url, 80)}]"
    return text_of(part)


def within(records: Sequence[dict[str, Any]], most: int = _BYTES) -> list[dict[str, Any]]:
    """The first of the records that together take no more bytes than that, in the order of their rows."""
    kept, size = [], 0
    for record in records:
        size += len(json.dumps(record))
        if size > most:
            break
        kept.append(record)
    return sorted(kept, key=lambda record: int(record["index"]))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}… ({len(text) - TEXT:,} more characters)"


__all__ = ["Sample", "prompt_of", "shown", "text_of", "within"]
