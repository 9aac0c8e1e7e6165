"""A run folder in; its records as candidates for a dataset out, streaming, each with its row and the prompt it was asked with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError, InputChanged, LlmbatchError, ReadError, UsageError
from llmbatch.core.types import Failure, Prompt, Row, RowId
from llmbatch.core.words import short
from llmbatch.folder.folder import ACCEPTED, RESULTS, Manifest, begun_run, read_manifest
from llmbatch.folder.input import check_input, kept_input, same_names
from llmbatch.folder.ordered import read_by
from llmbatch.folder.overlay import finished_retries
from llmbatch.folder.records import parse, part_lines
from llmbatch.formats import FORMATS
from llmbatch.formats.base import wire_format
from llmbatch.job.job import Job, job_of
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.publishing.base import Candidate, as_text
from llmbatch.sinks.children import CHILDREN
from llmbatch.sources.base import START, Source
from llmbatch.sources.opening import guess_format, open_source
from llmbatch.sources.reader import Reader

FILES = {"accepted": ACCEPTED, "children": CHILDREN, "results": RESULTS}
"""What of a run is published, by the name that settings have for it; where they name none, the first that is there."""

PROMPT = "prompt (text)"
"""The key of the prompt's digest in a run's identity."""

_NAMED_INSTEAD = "name what is to be published: the fields with the prompt and the completion, or the raw layout"


class FinishedRun:
    """A run whose every row has its record, under a name. Raises ``FolderError`` for a folder that holds none, and ``JobError``."""

    def __init__(self, folder: Path, name: str, rows: str = "auto", *, with_input: bool = True) -> None:
        self.folder = folder
        self.name = name
        self.manifest = _finished(folder)
        self.job: Job = job_of(folder)
        self.rows, self.path = _chosen(folder, rows)
        self._with_input = with_input

    @cached_property
    def program(self) -> str:
        """By which program a row was done."""
        try:
            return self.recipe.program.name
        except LlmbatchError:
            named = self.manifest.identity.get("program.name")
            return "single" if named is None else str(json.loads(named))

    def candidates(self) -> Iterator[Candidate]:
        """Every record, in input order. Raises what reading the run and its input raises; ``InputChanged`` for another input."""
        records = map(parse, part_lines([self.path]))
        if not self._with_input:
            yield from (self._candidate(record, None) for record in records)
            return
        rows = _Rows(self._source())
        for record in records:
            # of a child it is the row that it comes from
            index, row_id = record.get("parent_index", record["index"]), record.get("parent", record["id"])
            yield self._candidate(record, rows.at(index, row_id))

    @cached_property
    def recipe(self) -> Recipe:
        """How it asked its rows. Raises ``FolderError`` where its prompt is another by now, and ``UsageError``."""
        return _recipe_of(self.folder, self.job, self.manifest)

    @cached_property
    def _retries(self) -> list[tuple[frozenset[int], Recipe]]:
        """The rows that were tried again with another prompt, and how they were asked then; the last retry first."""
        found = []
        for folder in reversed(finished_retries(self.folder)):
            manifest = read_manifest(folder)
            if manifest is not None and manifest.identity.get(PROMPT) != self.manifest.identity.get(PROMPT):
                rows = frozenset(map(int, folder.with_suffix(".rows").read_text(encoding="utf-8").split()))
                found.append((rows, _recipe_of(folder, job_of(folder), manifest)))
        return found

    def _candidate(self, record: Mapping[str, Any], row: Row | None) -> Candidate:
        fields: dict[str, Any] = {**record, "run": self.name}
        content: dict[str, Any] | None = None
        if row is not None:
            fields["input"] = dict(row.data)
            content = {name: value for name, value in row.data.items() if name != self._id_field}
        group = content or [self.name, record.get("parent", record["id"])]
        return Candidate(fields, content, group, partial(self._asked, record, row), partial(self._samples, row))

    def _asked(self, record: Mapping[str, Any], row: Row | None) -> Prompt | Failure:
        if self.rows == "children":
            return Prompt(text=as_text(record.get("item")))
        if row is None:
            raise UsageError(
                f"{self.folder}: without the run's input its prompts cannot be rendered again: {_NAMED_INSTEAD}"
            )
        recipe = next((recipe for rows, recipe in self._retries if row.index in rows), self.recipe)
        rendered = recipe.render(row)
        return rendered if isinstance(rendered, Failure) else rendered.prompt

    def _samples(self, row: Row | None) -> int | None:
        if self.program != "single" or self.rows == "children":
            return None
        return int(self.manifest.identity.get("sampling.n", 1)) if row is None else self.recipe.asked(row).samples

    @cached_property
    def _id_field(self) -> str:
        if (named := self.job.input.id_field) is not None:
            return named
        format_ = self.job.input.format
        with contextlib.suppress(LlmbatchError):
            format_ = format_ or guess_format(self.job.input.path)
        named = wire_format(format_, self.job.input.options).id_field if format_ in FORMATS else None
        return named or "id"

    def _source(self) -> Source:
        """The input, seen to be what the run read."""
        settings = kept_input(self.job.input, self.folder.absolute())
        try:
            source = open_source(settings)
            check_input(
                source, same_names(self.manifest.fingerprint, source.fingerprint()), read_by(self.folder), extend=True
            )
        except (UsageError, InputChanged, ReadError) as error:
            error.add_note(f"{self.folder}: to publish without its input, leave the input out and {_NAMED_INSTEAD}")
            raise
        return source


class _Rows:
    """The rows of an input, asked for in ascending order, each any number of times; it is read once and forward."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader = Reader(source)
        self._reader.seek(START)

    def at(self, index: int, row_id: RowId) -> Row:
        """The row with this index. Raises ``InputChanged`` where it is not there or has another id, and ``ReadError``."""
        reader = self._reader
        while reader.next is not None and reader.next.index < index:
            reader.take()
        row = reader.next
        if reader.failure is not None:
            raise reader.failure
        if row is None or row.index != index or row.id != row_id:
            seen = (
                "the input ends before it" if row is None else f"{self._source.locate(row.cursor)} is {short(row.id)}"
            )
            raise InputChanged(f"the input has no row {short(row_id)} (index {index}) any more: {seen}. Restore it")
        return row


def _recipe_of(folder: Path, job: Job, manifest: Manifest) -> Recipe:
    """How a run asked its rows. Raises ``FolderError`` where its prompt is another by now, and ``UsageError``."""
    try:
        recipe = recipe_of(job)
    except UsageError as error:
        error.add_note(
            f"{folder}: so what the model was asked cannot be rendered again: restore it, or {_NAMED_INSTEAD}"
        )
        raise
    if recipe.identity()[PROMPT] != manifest.identity.get(PROMPT):
        raise FolderError(
            f"{folder}: the prompt is not what the run asked with any more, so what the model was asked cannot be rendered again: "
            f"restore it, or {_NAMED_INSTEAD}"
        )
    return recipe


def _finished(folder: Path) -> Manifest:
    manifest = begun_run(folder)
    if not manifest.finished or not (folder / RESULTS).exists():
        raise FolderError(f"{folder}: the run is not finished, so rows would be missing: finish it (the same command)")
    return manifest


def _chosen(folder: Path, rows: str) -> tuple[str, Path]:
    if rows == "auto":
        rows = next((name for name, file in FILES.items() if (folder / file).exists()), "results")
    path = folder / FILES[rows]
    if not path.exists():
        there = ", ".join(name for name, file in FILES.items() if (folder / file).exists())
        raise FolderError(f"{path}: the run has no {rows}; it has {there}")
    return rows, path


__all__ = ["FILES", "PROMPT", "FinishedRun"]
