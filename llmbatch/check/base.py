"""What a job asks of an answer, and the contract of a kind of output; that of a rule is in ``rule``.

A kind is a module with ``make(settings: OutputSettings) -> Kind``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.check import RULES
from llmbatch.check.copy import CopySettings
from llmbatch.check.glossary import GlossarySettings
from llmbatch.check.language import LanguageSettings
from llmbatch.check.length_ratio import LengthRatioSettings
from llmbatch.check.markup import MarkupSettings
from llmbatch.check.repetition import RepetitionSettings
from llmbatch.core.check import MESSAGE_LIMIT
from llmbatch.core.settings import Counts, IsPath, is_there
from llmbatch.core.types import Constraint, Failure, FailureKind
from llmbatch.core.words import clip

_KIND_FIELDS = ("json_schema", "choice", "regex", "grammar")
KIND_KEYS = frozenset({"schema", "choice", "regex", "grammar"})
"""The keys of the settings that say of what kind an answer is."""


def _is_schema_path(value: str, base: Path) -> bool:
    return value.endswith(".json") or is_there(value, base)


class OutputSettings(BaseModel):
    """What an answer must be. At most one of schema, choice, regex and grammar; without any it is free text."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    json_schema: Annotated[dict[str, Any] | str | None, IsPath(_is_schema_path), Counts.CONTENT] = Field(
        None,
        alias="schema",
        description="a JSON Schema: itself, a .json file, or the import path of a pydantic model (module:Model)",
    )
    choice: tuple[str, ...] | None = Field(
        None, description="the answer is one of these; white space around it does not count"
    )
    regex: str | None = Field(None, description="the whole answer matches this regular expression")
    grammar: Annotated[str | None, IsPath(is_there), Counts.CONTENT] = Field(
        None, description="the answer is a sentence of this grammar (Lark or EBNF): its text, or a path"
    )
    constrained: bool = Field(
        True, description="hold the engine to it while it decodes; false: check the answer afterwards only"
    )
    reject: tuple[str, ...] = Field(
        (),
        description="send back answers in which a /pattern/ is found, or that a predicate (package.module:name) refuses",
    )
    language: LanguageSettings = Field(None, description="the language of the answer")
    copied: CopySettings = Field(
        None, alias="copy", description="no copy of a text of the row, such as the one that was to be translated"
    )
    length_ratio: LengthRatioSettings | None = Field(
        None, description="the answer's length against that of a text of the row"
    )
    markup: MarkupSettings = Field(None, description="the markup of a text of the row is in the answer too")
    glossary: GlossarySettings | None = Field(
        None, description="the terms of a text of the row are translated as a glossary says"
    )
    repetition: RepetitionSettings = Field(
        None, description="no loops, where an engine that can stops early: true, or what counts as one"
    )
    thinking_budget: int | None = Field(
        None, ge=0, description="tokens that a model may think before its answer; then its thinking is ended for it"
    )
    allow_empty: bool = Field(False, description="take a blank answer; else it is sent back")
    allow_truncated: bool = Field(
        False,
        description="take an answer that ends at max_tokens, if it passes; else it is gone on from or tried again",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> OutputSettings:
        given = [name.removeprefix("json_") for name in _KIND_FIELDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"an answer has one kind: {' and '.join(given)} cannot be given together")
        return self

    def rules(self) -> Iterator[tuple[str, Any]]:
        """The rules that are asked for, as in ``RULES``: name and settings."""
        fields = {field.alias or name: name for name, field in type(self).model_fields.items()}
        for rule in RULES:
            if settings := getattr(self, fields[rule]):
                yield rule, settings

    @property
    def kind(self) -> str:
        """The name of the kind of output, as in ``KINDS``."""
        if isinstance(self.json_schema, str):
            return "pydantic_model"
        return next((name for name in _KIND_FIELDS if getattr(self, name) is not None), "text")


class Reading(NamedTuple):
    """A kind's word on an answer. ``complete``: nothing that would have followed could have belonged to it."""

    value: Any
    failure: Failure | None = None
    complete: bool = False


class Kind(NamedTuple):
    """One kind of output, ready for use: what the engine gets, and what reads the text."""

    constraint: Constraint | None
    read: Callable[[str], Reading]


def failed(kind: FailureKind, message: str) -> Reading:
    """A reading that sends the answer back; the message is bounded."""
    return Reading(None, Failure(kind, clip(message, MESSAGE_LIMIT)))
