"""The contract of a reader: a model's output in, the answer that is scored out, or None where there is none to be read.

A reference is brought into the same form, so that ``1,000`` in a data set and ``1000 km`` in an answer are the same number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.table import find
from llmbatch.core.words import near, short
from llmbatch.evals.base import AnswerKind
from llmbatch.evals.readers import READERS


class ReaderSettings(BaseModel):
    """What every reader's settings have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=ReaderSettings)
Read = Callable[[str, S, Sequence[str]], Any]
"""(the output's text, the reader's settings, the row's choices) -> the answer, or None."""


class ReaderKind(NamedTuple, Generic[S]):
    """One way of reading. ``reference`` brings a reference into an answer's form; it raises ``ValueError``, in words, for one that
    cannot be one.
    """

    settings: type[S]
    read: Read[S]
    gives: Callable[[S], AnswerKind]
    reference: Callable[[Any, S, Sequence[str]], Any]
    of_row: Callable[[str, S, Mapping[str, Any]], Any] | None = None
    """In place of ``read``, where what is read depends on the row's fields."""
    problem: Callable[[Mapping[str, Any], S], str | None] | None = None
    """What of a row's fields it cannot work with, in words that follow the row's name; asked before a run."""


_NO_ROW: Mapping[str, Any] = {}


class Reader(NamedTuple):
    """A task's reader: a kind with its settings."""

    name: str
    kind: ReaderKind[Any]
    settings: Any

    @property
    def gives(self) -> AnswerKind:
        return self.kind.gives(self.settings)

    def read(self, output: Any, choices: Sequence[str] = (), row: Mapping[str, Any] = _NO_ROW) -> Any:
        """The answer in an output, None where there is none."""
        if output is None:
            return None
        if self.kind.of_row is not None:
            return self.kind.of_row(as_text(output), self.settings, row)
        return self.kind.read(as_text(output), self.settings, choices)

    def problem(self, row: Mapping[str, Any]) -> str | None:
        """What of a row's fields it cannot work with, in words that follow the row's name."""
        return None if self.kind.problem is None else self.kind.problem(row, self.settings)

    def reference(self, value: Any, choices: Sequence[str] = ()) -> Any:
        """A reference in an answer's form. Raises ``ValueError``."""
        return self.kind.reference(value, self.settings, choices)


def make_reader(entry: str | Mapping[str, Any]) -> Reader:
    """The reader of a task's entry: ``number``, or ``{kind: regex, pattern: "Answer: (.*)"}``. Raises ``JobError``."""
    given = {"kind": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in READERS:
        raise JobError(
            f"read: unknown reader {short(name)}{near(str(name), READERS)}: known are {', '.join(READERS)}; settings go beside its "
            "name: {kind: regex, pattern: ...}"
        )
    kind: ReaderKind[Any] = find(READERS, name, "reader")
    try:
        return Reader(name, kind, kind.settings.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        where, fields = ".".join(map(str, first["loc"])), kind.settings.model_fields
        said = f"unknown key{near(where, fields)}" if first["type"] == "extra_forbidden" else first["msg"]
        known = ", ".join(field.alias or key for key, field in fields.items()) or "none"
        raise JobError(f"read ({name}): {where}: {said}; its settings are: {known}") from error


def as_text(value: Any) -> str:
    """An output as text: JSON that was checked is written again."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain_text(value: Any, _settings: Any, _choices: Sequence[str]) -> str:
    """The ``reference`` of readers that give text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is {short(value)}, and must be a text")  # noqa: TRY004 - it is about data
    return str(value).strip()


__all__ = ["Reader", "ReaderKind", "ReaderSettings", "as_text", "make_reader", "plain_text"]
