"""What a job asks of an answer, and the contract of a kind of output.

A kind is a module with ``make(settings: OutputSettings) -> Kind``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.check import MESSAGE_LIMIT
from llmbatch.core.settings import Counts, IsPath, is_there
from llmbatch.core.types import Constraint, Failure, FailureKind
from llmbatch.core.words import clip

_KIND_FIELDS = ("json_schema", "choice", "regex", "grammar")


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
