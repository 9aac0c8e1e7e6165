"""Declared variables in; the values of one row out, or the words for what is missing or of the wrong type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmbatch.core.types import Failure, FailureKind, Row
from llmbatch.core.words import first_few, is_of, short, type_name

TypeName = Literal["string", "integer", "number", "boolean", "array", "object", "any", "image", "images"]
IMAGES = frozenset({"image", "images"})


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a prompt whose value each row brings. ``field`` is the row's field that holds it."""

    name: str
    type: TypeName
    field: str
    required: bool
    default: Any = None
    enum: tuple[Any, ...] = ()


def collect(variables: Iterable[Variable], row: Row, fixed: Mapping[str, Any]) -> dict[str, Any] | Failure:
    """The values of all variables for a row: its own, defaults, and those fixed for the job.

    Null counts as missing. A required string must not be blank: a prompt about nothing has only a made-up answer.
    """
    values = dict(fixed)
    data = row.data
    for variable in variables:
        value = data.get(variable.field)
        if value is None:
            if variable.required:
                return _missing(variable, row)
            value = variable.default
        else:
            if not (value.__class__ is str and variable.type == "string") and not is_of(value, variable.type):
                return _wrong_type(variable, row, value)
            if variable.enum and value not in variable.enum:
                return _not_in_enum(variable, row, value)
            if variable.required and value.__class__ is str and (not value or value.isspace()):
                return _blank(variable, row)
        values[variable.name] = value
    return values


def _called(variable: Variable) -> str:
    if variable.field == variable.name:
        return f"the variable {variable.name!r}"
    return f"the variable {variable.name!r} (field {variable.field!r})"


def _missing(variable: Variable, row: Row) -> Failure:
    if variable.field in row.data:
        seen = "is null"
    else:
        fields = first_few(row.data, 8, short)
        seen = f"is missing; the row's fields are {fields}" if row.data else "is missing; the row has no fields"
    name = variable.name
    close = difflib.get_close_matches(variable.field, [field for field in row.data if isinstance(field, str)], n=1)
    field = short(close[0]).strip("'") if close and variable.field not in row.data else "FIELD"
    advice = f"name the field with --map {name}={field}, or give one value for all rows with --var {name}=VALUE"
    return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {_called(variable)} {seen}: {advice}")


def _wrong_type(variable: Variable, row: Row, value: object) -> Failure:
    seen = f"is of type {type_name(value)} ({short(value)})"
    return Failure(
        FailureKind.PROMPT, f"row {short(row.id)}: {_called(variable)} {seen}, and must be of type {variable.type}"
    )


def _not_in_enum(variable: Variable, row: Row, value: object) -> Failure:
    known = ", ".join(short(item) for item in variable.enum)
    return Failure(
        FailureKind.PROMPT, f"row {short(row.id)}: {_called(variable)} is {short(value)}, and must be one of {known}"
    )


def _blank(variable: Variable, row: Row) -> Failure:
    advice = f"give the variable a default in the prompt file if that is meant (default: {''!r})"
    return Failure(FailureKind.EMPTY_PROMPT, f"row {short(row.id)}: {_called(variable)} is blank: {advice}")
