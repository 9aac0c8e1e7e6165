"""Declared variables in; the values of one row out, or the words for what is missing or of the wrong type."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmbatch.types import Failure, FailureKind, Row

TypeName = Literal["string", "integer", "number", "boolean", "array", "object", "any"]

_CLASSES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = 4
_SHORT.maxlevel = 2


def short(value: object) -> str:
    """A value as a message shows it: in quotes where it is text, cut where it is long."""
    return _SHORT.repr(value)


def type_name(value: object) -> str:
    """The JSON name of a value's type, or the Python one where JSON has none."""
    if value is None:
        return "null"
    return next((name for name, classes in _CLASSES.items() if value.__class__ in classes), type(value).__name__)


def is_of(value: object, kind: str) -> bool:
    """Whether a value is of a declared type. A boolean is no integer, and null is of no type."""
    if kind == "any":
        return value is not None
    if value.__class__ in _CLASSES[kind]:
        return True
    # subclasses, such as an enum's or a data frame library's, but not bool, which Python counts as an int
    return isinstance(value, _CLASSES[kind]) and not (isinstance(value, bool) and kind != "boolean")


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
            if not is_of(value, variable.type):
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
        fields = ", ".join(short(name) for name in list(row.data)[:8]) + (", ..." if len(row.data) > 8 else "")
        seen = f"is missing; the row's fields are {fields}" if row.data else "is missing; the row has no fields"
    name = variable.name
    advice = f"name the field with --map {name}=FIELD, or give one value for all rows with --var {name}=VALUE"
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
