"""The contract of a wire format: a line of somebody else's batch format <-> our values, both ways in one file, pure: no I/O.

A line is one JSON object. Containers are the sources' matter: an input in a wire format is JSON lines and this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from llmbatch.core.errors import SourceError
from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.table import find
from llmbatch.core.types import Failure, Rendered, RowId
from llmbatch.formats import FORMATS


@fast_dataclass(frozen=True, slots=True)
class Asked:
    """How a row was asked, which its record does not say."""

    chat: bool = True  # else plain completion
    samples: int = 1  # answers for the row; above 1 the record's output is a list of them
    vector: bool = False  # the record's output is one


@fast_dataclass(frozen=True, slots=True)
class Answered:
    """A row with what became of it. ``record`` is in its JSON form, ``row`` the input's data: empty where it could not be read.

    ``created`` is in Unix seconds.
    """

    record: Mapping[str, Any]
    row: Mapping[str, Any]
    asked: Asked
    model: str
    created: int


class Format(Protocol):
    """One wire format."""

    @property
    def id_field(self) -> str:
        """The field of a request that names it."""

    @property
    def keys(self) -> frozenset[str]:
        """The fields that tell its requests from rows of other kinds."""

    def problem(self, line: Mapping[str, Any]) -> str | None:
        """Why an object is no request of this format at all, in words, or ``None``: such a line is a malformed row."""

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        """What a request asks for, by our names; or why it cannot be done, in words that follow the row's id.

        What changes the answer and is not known is a failure, never ignored. ``adapters`` are the LoRA adapters that it may name
        as its model. Never raises for what is in a line.
        """

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """The request that asks for this, with all that holds for the row in its sampling and output. ``read`` reads it back."""

    def result(self, answered: Answered) -> dict[str, Any]:
        """The line of results for a row, be it ok or not."""


def wire_format(name: str) -> Format:
    """A format by its name. Raises ``SourceError`` for an unknown one."""
    made: Format = find(FORMATS, name, "wire format", error=SourceError)()
    return made
