"""The contract of a wire format: a record of somebody else's batch format <-> our values, both ways in one file, pure: no I/O.

How its records lie in files is its ``container``, which the sources read; what a whole output looks like is a layout's matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch.core.errors import SourceError
from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.table import find
from llmbatch.core.types import EMPTY, Failure, Rendered, RowId
from llmbatch.formats import FORMATS

Container = Literal["lines", "values", "files", "texts", "csv", "csv_lines"]
"""How records lie in files: JSON objects, a line each; any JSON value a line, else the line's text; a file is a record, JSON or
else text; a file is a text, whatever is in it; CSV under a header; CSV without one, a line a record. A record of ``lines`` is its
row's data; any other is ``data["record"]``: of ``csv`` a mapping, of ``csv_lines`` a list of texts."""

RECORD = "record"


class NoSettings(BaseModel):
    """Of a format that has no settings of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HowAsked(Protocol):
    """How a row was asked, which its record does not say."""

    @property
    def chat(self) -> bool:
        """Whether as a chat; else as plain completion."""

    @property
    def samples(self) -> int:
        """How many answers for the row; above 1 the record's output is a list of them."""

    @property
    def vector(self) -> bool:
        """Whether the record's output is one."""

    @property
    def own_check(self) -> bool:
        """Whether the row itself says what its answer must be: by a schema, say."""

    @property
    def job_check(self) -> bool:
        """Whether the job, or its prompt, says what an answer must be, whatever a row asks for."""


@fast_dataclass(frozen=True, slots=True)
class Asked:
    """Implements ``HowAsked`` where all is known."""

    chat: bool = True
    samples: int = 1
    vector: bool = False
    own_check: bool = False
    job_check: bool = False


@fast_dataclass(frozen=True, slots=True)
class Answered:
    """A row with what became of it. ``record`` is in its JSON form, ``row`` the input's data: empty where it could not be read.

    ``created`` is in Unix seconds. ``line`` is where in its file the row starts, counted from 0 and blank lines with it.
    """

    record: Mapping[str, Any]
    row: Mapping[str, Any]
    asked: HowAsked
    model: str
    created: int
    line: int = 0


class Format(Protocol):
    """One wire format; made with its settings."""

    Settings: type[BaseModel]

    @property
    def container(self) -> Container:
        """How its records lie in files."""

    @property
    def id_field(self) -> str | None:
        """The field of a request that names it; ``None`` where none does."""

    @property
    def keys(self) -> frozenset[str]:
        """The fields that tell its requests from rows of other kinds; none where nothing does, and the format must be named."""

    @property
    def takes_text(self) -> bool:
        """Whether a record of ``values`` or ``files`` that is no JSON is a text, and not malformed."""

    @property
    def takes_prompt(self) -> bool:
        """Whether records that bring no prompt of their own are variables for the job's."""

    def problem(self, line: Mapping[str, Any]) -> str | None:
        """Why a row's data is no request of this format at all, in words, or ``None``: such a line is a malformed row."""

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure | None:
        """What a row's data asks for, by our names; or why it cannot be done, in words that follow the row's id.

        What changes the answer and is not known is a failure, never ignored. ``adapters`` are the LoRA adapters that it may name
        as its model. ``None``: the record brings no prompt of its own, and is variables for the job's prompt (``variables``).
        Never raises for what is in a line.
        """

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the job's prompt sees of a row's data as its fields."""

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """The request that asks for this, with all that holds for the row in its sampling and output. ``read`` reads it back."""

    def result(self, answered: Answered) -> dict[str, Any]:
        """The line of results for a row, be it ok or not."""


def wire_format(name: str, options: Mapping[str, Any] = EMPTY) -> Format:
    """A format by its name, with its settings. Raises ``SourceError`` for an unknown one, and for settings that it has not."""
    kind = find(FORMATS, name, "wire format", error=SourceError)
    try:
        settings = kind.Settings.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("input.options", *problem["loc"])))
        known = ", ".join(kind.Settings.model_fields) or "none"
        said = problem["msg"].removeprefix("Value error, ")
        raise SourceError(f"{place}: {said}; the settings of {name} are {known}") from None
    made: Format = kind(settings)
    return made
