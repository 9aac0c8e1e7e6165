"""Rows that are requests of a wire format already in; what they ask for out, as the format reads it.

A record that brings no prompt of its own is variables for the job's prompt, where the format has such records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from llmbatch.core.types import EMPTY, Failure, FailureKind, Rendered, Row
from llmbatch.core.words import short
from llmbatch.formats.base import Format
from llmbatch.prompt.base import RowPrompt
from llmbatch.prompt.variables import Variable


class RequestsPrompt:
    """The prompt of a job whose input is requests. ``adapters`` are the LoRA adapters that a request may name.

    ``vectors``: the job asks for vectors, so that requests may too. ``several``: a request may bring several prompts. ``template``
    is the job's own prompt.
    """

    name = "requests"
    row_variables: tuple[Variable, ...] = ()
    parts: frozenset[tuple[str, str]] = frozenset()
    ready_made = True
    takes_images = False  # a request may bring some, which is known when it is read

    def __init__(
        self,
        format_: Format,
        adapters: Collection[str] = (),
        *,
        vectors: bool = False,
        several: bool = True,
        template: RowPrompt | None = None,
    ) -> None:
        self._format = format_
        self._adapters = frozenset(adapters)
        self._vectors = vectors
        self._several = several
        self._template = template
        of_all = getattr(format_, "sampling", EMPTY)  # of formats whose job says what holds for all of its requests
        self.sampling: Mapping[str, Any] = of_all if template is None else {**template.sampling, **of_all}
        self.output: Mapping[str, Any] | None = None if template is None else template.output
        self.program: Mapping[str, Any] | None = None if template is None else template.program
        self.text = "requests" if template is None else f"requests\n{template.text}"

    def render(self, row: Row) -> Rendered | Failure:
        """What the request asks for, or a ``Failure`` that names the row and the key. Never raises for what is in a row."""
        if row.failure is not None:
            return row.failure
        read = self._format.read(row.data, self._adapters)
        if read is None:
            if self._template is not None:
                return self._template.render(self._as_variables(row))
            read = Failure(
                FailureKind.PROMPT, "the record brings no prompt of its own, and the job has none: give --prompt"
            )
        elif isinstance(read, Rendered) and read.vector and not self._vectors:
            read = Failure(
                FailureKind.PROMPT, "the request is for an embedding, and the job is not: take --program embed"
            )
        elif isinstance(read, Rendered) and read.more and not self._several:
            read = Failure(
                FailureKind.PROMPT,
                f"the request brings {1 + len(read.more):,} prompts, which is for --program single or embed, without "
                "plan.overflow=chunk: give each a line of its own",
            )
        return replace(read, message=f"row {short(row.id)}: {read.message}") if isinstance(read, Failure) else read

    def value(self, name: str, row: Row) -> Any:
        if self._template is not None:
            return self._template.value(name, self._as_variables(row))
        return row.data.get(name)

    def _as_variables(self, row: Row) -> Row:
        return replace(row, data=self._format.variables(row.data))
