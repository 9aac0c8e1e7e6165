"""The contract of a rule: a checked answer and what its row holds in; why the answer is sent back, or nothing, out.

A rule is a module with ``make(settings) -> Rule``, named in ``RULES`` by the key that its settings have in a job. A rule that holds
the answer against something names it (``names``): a variable of the prompt, or else a field of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import FailureKind
from llmbatch.core.words import short, type_name


class Answer(NamedTuple):
    """An answer of the kind that was asked for. ``value`` is text, or JSON for a schema; ``row`` is what the row holds."""

    text: str
    value: Any
    row: Mapping[str, Any]


Judge = Callable[[Answer], str | None]
"""An answer -> why it is sent back, or None. The words are shown to the model where that can help."""


def _none(_row: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready for use.

    ``misfit`` says what is wrong with what the row holds under ``names``, before anything is asked for it. ``early``: the rule
    looks at the text alone, and so at an answer too that was cut off or is not of its kind.
    """

    kind: FailureKind
    judge: Judge
    names: tuple[str, ...] = ()
    misfit: Callable[[Mapping[str, Any]], str | None] = _none
    early: bool = False


class RuleSettings(BaseModel):
    """What is the same for every rule on the words of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    part: str | None = Field(
        None,
        description="the key of a JSON answer that is looked at, dots go deeper; by default all texts in the answer",
    )


class AgainstSource(RuleSettings):
    """Of a rule that holds the answer against a text of its row."""

    field: str = Field(description="the text: a variable of the prompt, or else a field of the row")


def short_form(key: str) -> Callable[[Any], Any]:
    """Of settings that may also be given as one text: what that text stands for."""

    def whole(value: Any) -> Any:
        if value is None or isinstance(value, Mapping | RuleSettings):
            return value
        if not isinstance(value, str):
            raise ValueError("is a text or a mapping")  # noqa: TRY004 - which pydantic tells apart
        return {key: value}

    return whole


def text_of(answer: Answer, part: str | None) -> str:
    """The words of an answer that a rule looks at: its text, or the texts in its JSON, one a line."""
    value = answer.value
    for key in part.split(".") if part else ():
        value = _below(value, key)
    return "\n".join(_texts(value))


def not_text(setting: str, name: str, row: Mapping[str, Any]) -> str | None:
    """What is wrong with the text that a row should hold under a name; None where it is one."""
    value = row.get(name)
    if isinstance(value, str):
        return None
    if value is None:
        return f"answer.{setting} needs {short(name)}, and the row has none"
    return f"answer.{setting} needs a text in {short(name)}, and it is of type {type_name(value)} ({short(value)})"


def _below(value: Any, key: str) -> Any:
    """What is under a key; of a list, of each of its items."""
    if isinstance(value, list):
        return [_below(item, key) for item in value]
    return value.get(key) if isinstance(value, dict) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


__all__ = ["AgainstSource", "Answer", "Judge", "Rule", "RuleSettings", "not_text", "short_form", "text_of"]
