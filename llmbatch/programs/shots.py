"""A row with worked examples in; its prompt with them before it, as a person would show them, out.

An example is ``{"row": {...}, "answer": "..."}``: it is rendered with the row's own prompt, and its answer stands behind it. In a
chat each is a turn of its own; in a text they stand one after another:

    Q: 1 + 1?
    A: 2

    Q: 2 + 2?
    A:
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import Failure, FailureKind, Message, Prompt
from llmbatch.core.words import short
from llmbatch.programs.base import Ask, RowAsk


class ShotSettings(BaseModel):
    """Where a row has its worked examples, and how they are shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shots: str = Field(
        "", description="the field of the row with the examples, dots go deeper; by default there are none"
    )
    delimiter: str = Field("", description="between a prompt that is text and an answer")
    separator: str = Field("\n\n", description="between two examples in a text")
    fewer: bool = Field(
        False, description="where they leave no room for the answer, the first ones are left out; else the row fails"
    )


def asked(row: RowAsk, settings: ShotSettings) -> Ask | Failure:
    """The row's prompt, with its examples before it."""
    ask = row.ask()
    shots: Sequence[Mapping[str, Any]] = field_of(row, settings.shots) or () if settings.shots else ()
    if isinstance(ask, Failure) or not shots:
        return ask
    shown: list[Prompt] = []
    for number, shot in enumerate(shots):
        example = row.ask("main", **shot["row"])
        if isinstance(example, Failure):
            return Failure(example.kind, f"row {short(row.row.id)}: its example {number}: {example.message}")
        shown.append(example.prompt)
    answers = [str(shot["answer"]) for shot in shots]
    first = 0
    while True:
        whole = replace(ask, prompt=_joined(shown[first:], answers[first:], ask.prompt, settings))
        if not settings.fewer or first == len(shown) or (room := row.room(whole)) is None or room >= 0:
            return whole
        first += 1


def field_of(row: RowAsk, path: str) -> Any:
    """What the row has at a path of keys; None where there is nothing."""
    value: Any = row.row.data
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def unusable(row: RowAsk, said: str) -> Failure:
    """Why a row cannot be asked about."""
    return Failure(FailureKind.PROMPT, f"row {short(row.row.id)}: {said}")


def _joined(shown: Sequence[Prompt], answers: Sequence[str], last: Prompt, settings: ShotSettings) -> Prompt:
    if last.messages is None:
        pieces = [
            f"{prompt.text}{settings.delimiter}{answer}{settings.separator}"
            for prompt, answer in zip(shown, answers, strict=True)
        ]
        return replace(last, text="".join(pieces) + (last.text or ""))
    head, turns = _parted(last)
    messages: list[Message] = list(head)
    for prompt, answer in zip(shown, answers, strict=True):
        messages += [*_parted(prompt)[1], {"role": "assistant", "content": answer}]
    images = tuple(image for prompt in (*shown, last) for image in prompt.images)
    return replace(last, messages=(*messages, *turns), images=images)


def _parted(prompt: Prompt) -> tuple[Sequence[Message], Sequence[Message]]:
    """The system messages that a chat begins with, and what follows."""
    messages = prompt.messages or ()
    start = next((at for at, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    return messages[:start], messages[start:]


__all__ = ["ShotSettings", "asked", "field_of", "unusable"]
