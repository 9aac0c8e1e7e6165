"""A candidate in; what the model was asked, as messages or as text, and what it answered, out.

It is what it really was, or what the settings name fields for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llmbatch.core.messages import ready_messages
from llmbatch.core.types import Failure, Message
from llmbatch.core.words import short, type_name
from llmbatch.publishing.base import MISSING, Candidate, Dropped, PublishSettings, as_text, value_at

Asked = tuple[Message, ...] | str
"""The messages of a chat, or the text that a model goes on from."""


class Answer(NamedTuple):
    """One answer of a record. ``part`` is its number, where the record has several."""

    output: Any
    text: str
    reasoning: str | None
    part: int | None


def asked(candidate: Candidate, settings: PublishSettings) -> Asked | Dropped:
    """What the answer is an answer to. A named field holds a text or ready-made messages."""
    system: Asked | Dropped = ""
    if settings.system is not None and isinstance(system := _text(candidate, settings.system), Dropped):
        return system
    if settings.prompt is not None:
        value = value_at(candidate.fields, settings.prompt)
        if isinstance(value, list | tuple):
            prompt: Asked | Dropped = _messages(candidate, settings.prompt, value)
        else:
            prompt = _text(candidate, settings.prompt)
    else:
        prompt = _rendered(candidate)
    if isinstance(prompt, Dropped) or not system:
        return prompt
    return ({"role": "system", "content": system}, *as_messages(prompt))


def as_messages(prompt: Asked) -> tuple[Message, ...]:
    """A prompt for a chat: a text is what the user says."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt


def answers(candidate: Candidate, settings: PublishSettings) -> list[Answer] | Dropped:
    """The record's answers that there are: one, or one for each sample that is not null."""
    if settings.completion is not None:
        found = value_at(candidate.fields, settings.completion)
        if found is MISSING or found is None:
            return _not_there(candidate, settings.completion, found)
        return [Answer(found, as_text(found), None, None)]
    output, reasoning = candidate.fields.get("output"), candidate.fields.get("reasoning")
    if output is None:
        return Dropped("no_answer", f"row {short(candidate.fields['id'])}: its output is null")
    if isinstance(output, list) and (candidate.samples() or 1) > 1:
        thoughts = reasoning if isinstance(reasoning, list) else [None] * len(output)
        pairs = enumerate(zip(output, thoughts, strict=False))
        return [Answer(each, as_text(each), thought, part) for part, (each, thought) in pairs if each is not None]
    return [Answer(output, as_text(output), reasoning if isinstance(reasoning, str) else None, None)]


def answer_message(answer: Answer, settings: PublishSettings) -> Message:
    """What the assistant says; its thinking stands beside it, as chat templates of thinking models read it."""
    message = {"role": "assistant", "content": answer.text}
    return {**message, "reasoning_content": answer.reasoning} if settings.reasoning else message


def _rendered(candidate: Candidate) -> Asked | Dropped:
    prompt = candidate.asked()
    if isinstance(prompt, Failure):
        return Dropped("no_prompt", prompt.message)
    if prompt.messages is None:
        return prompt.text or ""
    return tuple({"role": message["role"], "content": message["content"]} for message in prompt.messages)


def _messages(candidate: Candidate, path: str, value: Any) -> Asked | Dropped:
    messages = ready_messages(value)
    if isinstance(messages, str):
        return Dropped("no_prompt", f"row {short(candidate.fields['id'])}: {path} {messages}")
    return messages


def _text(candidate: Candidate, path: str) -> str | Dropped:
    value = value_at(candidate.fields, path)
    if value is MISSING or value is None:
        return _not_there(candidate, path, value)
    return as_text(value)


def _not_there(candidate: Candidate, path: str, value: Any) -> Dropped:
    if value is None:
        return Dropped("no_field", f"row {short(candidate.fields['id'])}: {path} is null")
    return Dropped(
        "no_field", f"row {short(candidate.fields['id'])}: there is no {path}; {seen_at(candidate.fields, path)}"
    )


def seen_at(fields: Any, path: str) -> str:
    """What there is in place of a path that leads nowhere, in words."""
    *parents, _ = path.split(".")
    for depth in range(len(parents), -1, -1):
        at = ".".join(parents[:depth])
        holder = value_at(fields, at) if at else fields
        if holder is not MISSING:
            where = at or "the record"
            if isinstance(holder, dict):
                names = [str(name) for name in holder if at or name not in _ALWAYS]
                return f"{where} has {', '.join(names[:12]) or 'no fields'}"
            return f"{where} is of type {type_name(holder)}"
    return "the record has other fields"


_ALWAYS = {"usage", "finish_reason", "attempts", "index"}  # of little use where somebody looks for a field of theirs
