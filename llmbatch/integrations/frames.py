"""Rows of somebody's table in; columns with what became of each, in the rows' order, out: what all integrations of tables share.

A row that fails keeps its place: it has no output, and its error says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Required, TypedDict

from llmbatch.api import AProgram, Schema
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.events import Watcher
from llmbatch.core.types import Record, Status
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.integrations.frames_types import arrow_type, fitted
from llmbatch.integrations.rows_job import RowsJob
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job
from llmbatch.programs.base import PromptFacts

Section = Mapping[str, Any]


class JobArguments(TypedDict, total=False):
    """What rows are run by, as ``llmbatch.generate`` has it, and what the new columns are called.

    The output goes into ``column``, and why there is none into ``error``. Answers by a schema are structs with its types; with
    ``expand`` each property of the schema is a column, and ``column`` is none.
    """

    model: Required[str | Path]
    prompt: str | Path | Section | None
    program: AProgram | None
    schema: Schema | None
    column: str
    error: str
    expand: bool
    answer: Section
    chat: Section
    engine: Section
    input: Section
    plan: Section
    retry: Section
    reuse: Section
    run: Section
    sampling: Section
    sinks: Section


class TableJob:
    """A job for any number of tables. With a ``keeper`` the engine that it keeps serves all of them; whoever made it closes it.

    Raises ``UsageError`` for what is wrong with the job, before a model is loaded wherever that can be known by then.
    """

    def __init__(self, arguments: JobArguments, keeper: EngineKeeper | None = None) -> None:
        given: dict[str, Any] = dict(arguments)
        self._column, self._error = given.pop("column", "output"), given.pop("error", "error")
        self._expand = given.pop("expand", False)
        self._rows = RowsJob(given, keeper)
        self.types = self._types()

    @property
    def facts(self) -> PromptFacts:
        """What is known of the prompt: the fields of rows that it names, its sampling with all defaults."""
        return self._rows.recipe.facts

    @property
    def job(self) -> Job:
        """The job; its input and output stand for those that it is given."""
        return self._rows.job

    @cached_property
    def digest(self) -> str:
        """Of all that the answers depend on besides the rows."""
        identity = {**identity_of(self.job), **self._rows.recipe.identity()}
        return short_digest(repr([sorted(identity.items()), self._column, self._error, self._expand]))

    def answers(
        self,
        rows: Iterable[Mapping[str, Any]],
        count: int,
        columns: Collection[str],
        output: str | Path | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> dict[str, list[Any]]:
        """The values of each new column, for so many rows of a table with these columns; without rows no engine is started.

        With ``output`` they are a run in that folder, which the same call goes on with. Raises ``JobError`` where a new column is
        called as one of the table, and as ``llmbatch.run`` does.
        """
        if there := sorted(set(self.types) & set(columns)):
            raise JobError(
                f"the table has columns {', '.join(there)} already, and the result's are called so: give others with column= and "
                "error=, or rename those"
            )
        found: dict[str, list[Any]] = {name: [] for name in self.types}
        for record in self._rows.records(rows, count, output, watchers):
            for name, value in self._values(record).items():
                found[name].append(value)
        return found

    def table(self, answers: Mapping[str, Sequence[Any]]) -> Any:
        """The new columns as a ``pyarrow.Table``."""
        import pyarrow as pa

        return pa.table({name: pa.array(answers[name], kind) for name, kind in self.types.items()})

    def _types(self) -> dict[str, Any]:
        """The Arrow type of each new column."""
        import pyarrow as pa

        if self._error == self._column:
            raise JobError(f"column and error are both called {self._column!r}: give one of them another name")
        if not self._expand:
            return {self._column: self._type, self._error: pa.string()}
        if not pa.types.is_struct(self._type):
            raise JobError(
                "expand: the answers are no objects with known properties: give a schema, or leave expand out"
            )
        types = {field.name: field.type for field in self._type}
        if self._error in types:
            raise JobError(
                f"the schema has a property {self._error!r}, and errors are called so: give another name with error="
            )
        return {**types, self._error: pa.string()}

    @cached_property
    def _type(self) -> Any:
        """The type of a row's output. Only of single requests its schema is known."""
        import pyarrow as pa

        recipe, facts = self._rows.recipe, self.facts
        if recipe.gives_vectors:
            return pa.list_(pa.float32())
        if recipe.program.name != "single":
            return pa.string()
        kind = arrow_type(facts.answer)
        return pa.list_(kind) if (facts.sampling.get("n") or 1) > 1 else kind

    def _values(self, record: Record) -> dict[str, Any]:
        value, error = None, None
        if record.status is Status.OK:
            try:
                value = fitted(record.output, self._type)
            except ValueError as problem:
                error = f"output: {problem}"
        else:
            failure = record.failure
            error = str(record.status) if failure is None else f"{failure.kind}: {failure.message}"
        if not self._expand:
            return {self._column: value, self._error: error}
        return {**{field.name: value and value[field.name] for field in self._type}, self._error: error}


__all__ = ["JobArguments", "TableJob"]
