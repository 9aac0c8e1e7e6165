"""Rows that are requests of a wire format already in; what they ask for out, as the format reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from llmbatch.core.types import EMPTY, Failure, Rendered, Row
from llmbatch.core.words import short
from llmbatch.formats.base import wire_format
from llmbatch.prompt.variables import Variable


class RequestsPrompt:
    """The prompt of a job whose input is requests. ``adapters`` are the LoRA adapters that a request may name."""

    name = "requests"
    sampling: Mapping[str, Any] = EMPTY
    output: Mapping[str, Any] | None = None
    program: Mapping[str, Any] | None = None
    text = "requests"
    row_variables: tuple[Variable, ...] = ()
    parts: frozenset[tuple[str, str]] = frozenset()
    ready_made = True
    takes_images = False  # a request may bring some, which is known when it is read

    def __init__(self, adapters: Collection[str] = (), format: str = "requests") -> None:
        self._format = wire_format(format)
        self._adapters = frozenset(adapters)

    def render(self, row: Row) -> Rendered | Failure:
        """What the request asks for, or a ``Failure`` that names the row and the key. Never raises for what is in a row."""
        if row.failure is not None:
            return row.failure
        read = self._format.read(row.data, self._adapters)
        return replace(read, message=f"row {short(row.id)}: {read.message}") if isinstance(read, Failure) else read

    def value(self, name: str, row: Row) -> Any:
        return row.data.get(name)
