"""The contract of a layout: a record of a run in, the rows that it gives a dataset out; and the settings of publishing.

What settings call a field is a path in a record: ``output``, ``output.score``, ``input.text``, ``output.0.text``. ``input`` is the
row of the input that the record is of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from llmbatch.core.table import find
from llmbatch.core.types import Failure, Prompt, Status
from llmbatch.core.words import near
from llmbatch.publishing import LAYOUTS

MISSING: Any = object()
"""What a path leads to that leads nowhere."""

_MB = 1 << 20
_REST = "train"
"""The split of the rows that no other split takes."""


def _several(value: Any) -> Any:
    """One text for a list of one."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]


class PublishSettings(BaseModel):
    """How a dataset is made of the records of runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Literal["auto", "results", "children", "accepted"] = Field(
        "auto", description="the file of the run folder; auto: accepted.jsonl, else children.jsonl, else results.jsonl"
    )
    input: bool = Field(True, description="read the run's input again, so that each record has its row beside it")
    status: Annotated[tuple[Status, ...], BeforeValidator(_several)] = (Status.OK,)
    where: Texts = Field((), description="conditions that a row must meet, such as output.score >= 4")
    min_chars: int | None = Field(None, ge=0, description="of the answer")
    max_chars: int | None = Field(None, ge=1, description="of the answer")

    duplicates: Literal["near", "exact", "keep"] = Field("near", description="which are dropped; the first one stays")
    duplicates_in: Texts = Field((), description="the fields by which rows are compared; by default the layout's")
    similarity: float = Field(0.8, ge=0.5, lt=1, description="from which on two rows are near-duplicates")

    split: dict[str, float] = Field(default_factory=dict, description="share of the rows by name; the rest is train")
    group_by: Texts = Field((), description="rows with the same value are on one side; by default the row of the input")
    seed: int = Field(0, ge=0, lt=2**63, description="which groups are on which side")

    layout: str = "chat"
    columns: Texts = Field((), description="more fields as columns; of the raw layout the only ones")
    system: str | None = Field(None, description="the field with the system message")
    prompt: str | None = Field(None, description="the field with the prompt; by default as the model was asked")
    completion: str | None = Field(None, description="the field with the answer; by default output")
    reasoning: bool = Field(False, description="with the thinking part of the answer, where there is one")
    chosen: str | None = Field(None, description="preference: the field with the better answer")
    rejected: str | None = Field(None, description="preference: the field with the worse one")
    candidates: str | None = Field(None, description="preference: the field with a list of answers")
    score: str | None = Field(None, description="preference: where in each of them its score is")
    text: str | None = Field(None, description="preference: where in each of them its text is")

    license: str | None = Field(None, description="by the hub's name, such as apache-2.0; unknown where none is given")
    title: str | None = None
    language: Texts = ()
    shard_mb: int = Field(256, ge=1, description="size of a Parquet file")
    arrow: bool = Field(False, description="also as load_from_disk reads it, in the folder arrow/")
    report: bool = Field(
        False, description="with the page of each run, in the folder reports/: it has rows that are not in the dataset"
    )

    @field_validator("layout")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"unknown layout{near(name, LAYOUTS)}: known are {', '.join(LAYOUTS)}")
        return name

    @field_validator("split")
    @classmethod
    def _shares(cls, split: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name in split if not name.isidentifier() or name == _REST]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a split beside {_REST}, which takes the rest")
        if any(not 0 < share < 1 for share in split.values()) or sum(split.values()) >= 1:
            raise ValueError(f"shares lie between 0 and 1, and leave some rows for {_REST}")
        return split

    @model_validator(mode="after")
    def _fits_together(self) -> PublishSettings:
        of_pairs = ("chosen", "rejected", "candidates", "score", "text")
        if self.layout != "preference" and (given := [name for name in of_pairs if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} is for the preference layout, and the layout is {self.layout}")
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("chosen and rejected name the two answers of a pair: give both")
        if self.chosen is not None and (self.candidates is not None or self.score is not None):
            raise ValueError("a pair is two fields (chosen, rejected), or is found among candidates by their score")
        if self.min_chars is not None and self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) is above max_chars ({self.max_chars})")
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, that of the rest first."""
        return (_REST, *self.split)

    @property
    def shard_bytes(self) -> int:
        return self.shard_mb * _MB


class Dropped(NamedTuple):
    """Why something is not published: a reason to count, and for a person what was seen."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that may be published.

    ``fields`` are what paths and conditions see: the record's own, ``run``, and ``input``, where that is read. ``content`` is the
    input without the row's id. ``asked`` renders the prompt that the row was asked with: of a child its item. ``samples`` says how
    many answers the output has: above 1 it is a list of them, None: it is not simply an answer to that prompt.
    """

    fields: Mapping[str, Any]
    content: Mapping[str, Any] | None
    group: Any  # what rows of the same origin have in common
    asked: Callable[[], Prompt | Failure]
    samples: Callable[[], int | None]


class Example(NamedTuple):
    """A row of the dataset. ``fields`` are those of its candidate and what the layout adds; ``answer`` is what was learned from it.

    ``part`` tells the rows of one record apart.
    """

    columns: Mapping[str, Any]
    fields: Mapping[str, Any]
    answer: str
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """One form of a dataset's rows. ``compared`` are the fields by which its rows are compared, if nothing else is said."""

    examples: Callable[[Candidate, PublishSettings], Sequence[Example] | Dropped]
    compared: tuple[str, ...] = ("input", "output")
    tags: tuple[str, ...] = ()


def layout_of(name: str) -> Layout:
    """A layout by its name."""
    layout: Layout = find(LAYOUTS, name, "layout")
    return layout


def value_at(fields: Any, path: str) -> Any:
    """The value that a path leads to, or ``MISSING``. A key that has a dot in it is found before its parts are."""
    if isinstance(fields, Mapping):
        if path in fields:
            return fields[path]
        key, dot, rest = path.partition(".")
        while dot:
            if key in fields:
                return value_at(fields[key], rest)
            more, dot, rest = rest.partition(".")
            key = f"{key}.{more}"
    elif isinstance(fields, Sequence) and not isinstance(fields, str):
        key, dot, rest = path.partition(".")
        if key.isdecimal() and int(key) < len(fields):
            return value_at(fields[int(key)], rest) if dot else fields[int(key)]
    return MISSING


def as_text(value: Any) -> str:
    """A value as the model wrote it: text as it is, what was read from JSON as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = [
    "MISSING",
    "Candidate",
    "Dropped",
    "Example",
    "Layout",
    "PublishSettings",
    "as_text",
    "layout_of",
    "value_at",
]
