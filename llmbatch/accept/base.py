"""What a job asks of the rows that it accepts; a row's record in, what decides about it out.

A record says itself whether it meets the conditions, see ``details_of_fall``. So a run that goes on need neither read the input nor
ask predicates again for the rows that are done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from llmbatch.core.settings import Counts
from llmbatch.core.types import Record, RowId, Status

FELL = "fell"
"""The key in a record's ``details`` that says why the row is not to be accepted."""

_ROOTS = ("output", "details", "id")


def _several(value: Any) -> Any:
    """One text for a list of one."""
    return (value,) if isinstance(value, str) else value


def _unique(value: Any) -> Any:
    """``true`` for the default, a text for its field."""
    if value is True:
        return {}
    return {"field": value} if isinstance(value, str) else None if value is False else value


class UniqueSettings(BaseModel):
    """Which rows are too similar to be accepted both. Similar is what shares three-word pieces, case and spaces apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(
        "output", description="what is compared: output, or a part of it or of details, as output.question"
    )
    similarity: float = Field(0.8, ge=0.5, lt=1, description="share of pieces in common from which on a row is refused")

    @field_validator("field")
    @classmethod
    def _in_the_record(cls, field: str) -> str:
        if field.partition(".")[0] not in _ROOTS or not all(field.split(".")):
            raise ValueError(f"is a path that begins with one of {', '.join(_ROOTS)}, such as output.question")
        return field


class AcceptSettings(BaseModel):
    """Which rows are accepted, and how many of them are wanted. A row that is not ok never is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # what a record says does not depend on these, so a run may go on with others
    rows: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="so many accepted rows end the run; without it, all of the input is run"
    )
    when: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        (),
        description="conditions that must all hold: expressions over output, row (or input), details and id, such as "
        "output.score >= 4, or import paths of predicates (module:function)",
    )
    unique: Annotated[UniqueSettings | None, BeforeValidator(_unique), Counts.NOTHING] = Field(
        None, description="refuse a row that is a near-duplicate of one that was accepted before it"
    )
    give_up: Annotated[int | None, Counts.NOTHING] = Field(
        1000,
        ge=1,
        description="stop where so many candidates on end are not accepted; where one in more than 50 was accepted so far, "
        "twenty times as many as it took for one. null: never",
    )
    confidence: Annotated[float, Counts.NOTHING] = Field(
        0.9,
        gt=0,
        lt=1,
        description="how sure it is to be that what was asked will do, when the engine is about to run out of work: nearer to "
        "1 it is less idle at the end, and asks for more than is needed",
    )


class Fell(NamedTuple):
    """Why a candidate is not accepted: a reason to count by, and for a person what was seen."""

    reason: str
    message: str = ""


class Candidate(NamedTuple):
    """What decides about a row, once those before it are decided. ``text`` is what must not be similar to an accepted one's."""

    index: int  # type: ignore[assignment]
    id: RowId
    fell: Fell | None
    text: str | None = None


def details_of_fall(fell: Fell) -> dict[str, Any]:
    """What the record of a row that does not meet a condition has in its ``details``."""
    return {FELL: {"condition": fell.reason, **({"message": fell.message} if fell.message else {})}}


def candidate_of(record: Record, unique: UniqueSettings | None) -> Candidate:
    """What a row's record says of it."""
    if record.status is not Status.OK:
        failure = record.failure
        seen = (
            Fell(str(record.status)) if failure is None else Fell(f"{record.status}: {failure.kind}", failure.message)
        )
        return Candidate(record.index, record.id, seen)
    said = (record.details or {}).get(FELL)
    if isinstance(said, Mapping) and "condition" in said:
        return Candidate(record.index, record.id, Fell(str(said["condition"]), str(said.get("message", ""))))
    if unique is None:
        return Candidate(record.index, record.id, None)
    text = _text_at(record, unique.field)
    if text is None:
        return Candidate(record.index, record.id, Fell(f"unique: no {unique.field}", "there is nothing to be compared"))
    return Candidate(record.index, record.id, None, text)


def _text_at(record: Record, path: str) -> str | None:
    """What a path leads to, as text; ``None`` where it leads nowhere."""
    value: Any = {"output": record.output, "details": record.details, "id": record.id}
    for key in path.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


__all__ = ["FELL", "AcceptSettings", "Candidate", "Fell", "UniqueSettings", "candidate_of", "details_of_fall"]
