"""A JSON answer and the right one in; which part of the right one's fields it has right, out.

Fields are the leaves: ``order.items.0.price``. A list or object that is empty is a leaf, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of
from llmbatch.evals.metrics.accuracy import label_of
from llmbatch.evals.metrics.number import as_number


class JsonFieldsSettings(MetricSettings):
    fields: tuple[str, ...] = Field((), description="those that count, with all that is in them; by default every one")
    whole: bool = Field(False, description="an answer is right only where every field is")
    extra: bool = Field(False, description="fields that the reference does not have count as wrong ones")
    ignore_case: bool = False
    tolerance: float = Field(1e-9, ge=0, description="of numbers, as a part of the reference")


def json_fields(example: Example, settings: JsonFieldsSettings) -> float:
    """The share of right fields: of several references that of the one that is matched best, of several repeats the mean."""
    wanted = [_leaves(reference, settings) for reference in example.references]
    return share_of(
        example.answers, lambda answer: max(_right(_leaves(answer, settings), one, settings) for one in wanted)
    )


def _right(given: Mapping[str, Any], wanted: Mapping[str, Any], settings: JsonFieldsSettings) -> float:
    right = sum(name in given and _equal(given[name], value, settings) for name, value in wanted.items())
    of = len(wanted.keys() | given.keys()) if settings.extra else len(wanted)
    return float(right == of) if settings.whole else right / of


def _equal(given: Any, wanted: Any, settings: JsonFieldsSettings) -> bool:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        number = as_number(given) if not isinstance(given, str) else None
        return number is not None and abs(number - wanted) <= settings.tolerance * abs(wanted)
    return bool(label_of(given, ignore_case=settings.ignore_case) == label_of(wanted, ignore_case=settings.ignore_case))


def _leaves(value: Any, settings: JsonFieldsSettings) -> dict[str, Any]:
    leaves = dict(_walk(value, ""))
    if not settings.fields:
        return leaves
    return {
        name: leaf
        for name, leaf in leaves.items()
        if any(name == field or name.startswith(f"{field}.") for field in settings.fields)
    }


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping) and value:
        inner = iter(value.items())
    elif isinstance(value, list | tuple) and value:
        inner = iter(enumerate(value))
    if inner is None:
        yield name, value
        return
    for key, each in inner:
        yield from _walk(each, f"{name}.{key}" if name else str(key))


def _complaint(example: Example, settings: JsonFieldsSettings) -> str | None:
    for reference in example.references:
        if not isinstance(reference, Mapping | list):
            return "its reference is neither an object nor a list; say in the task that the field holds JSON"
        if not _leaves(reference, settings):
            return f"its reference has none of the fields {', '.join(settings.fields)}"
    return None


KIND = MetricKind(JsonFieldsSettings, json_fields, Needs(frozenset({"json"})), complaint=_complaint)
