"""What a job asks of an answer in; digests of the author's own code behind it out, by what each is of.

The job names a pydantic model or a predicate by its import path, which stays when the code is changed; what counts is the code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import FunctionType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from llmbatch.check.base import OutputSettings
from llmbatch.core.imports import is_import_path, load_object, source_of

_NOT_THE_AUTHORS = frozenset(
    {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", *sys.stdlib_module_names}
)


def author_code(settings: OutputSettings) -> dict[str, str]:
    """A pydantic model's JSON Schema, its source and that of what it is made of; the source of predicates. Raises ``JobError``.

    Functions that a validator or a predicate calls are not looked for.
    """
    found: dict[str, str] = {}
    schema = settings.json_schema
    if isinstance(schema, str) and is_import_path(schema) and not Path(schema).is_file():
        model = load_object(schema)
        found["answer.schema (JSON Schema)"] = _json_schema(model)
        for part in _parts_of(model, set()):
            found[f"answer.schema ({part.__module__}.{part.__qualname__})"] = source_of(part, part.__module__)
    for rule in settings.reject:
        if is_import_path(rule):
            found[f"answer.reject ({rule})"] = source_of(load_object(rule), rule.partition(":")[0])
    return {key: blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest() for key, text in found.items()}


def _json_schema(model: Any) -> str:
    try:
        return json.dumps(model.model_json_schema(), sort_keys=True)
    except PydanticUserError:  # it has none, which matters only where answers are held to it
        return ""


def _parts_of(annotation: Any, seen: set[int]) -> Iterator[Any]:
    """The author's classes and functions that a type is made of: bases, types of fields, validators in ``Annotated``."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    if isinstance(annotation, type) and not get_args(annotation):
        for base in annotation.__mro__:
            if _is_authors(base):
                yield base
        if issubclass(annotation, BaseModel):
            for field in annotation.model_fields.values():
                for part in (field.annotation, *field.metadata):
                    yield from _parts_of(part, seen)
        return
    function = getattr(annotation, "func", annotation)  # of pydantic's BeforeValidator and its like
    if isinstance(function, FunctionType) and _is_authors(function):
        yield function
    for part in (*get_args(annotation), getattr(annotation, "__value__", None)):  # the latter of a type alias
        if part is not None:
            yield from _parts_of(part, seen)


def _is_authors(part: Any) -> bool:
    return str(part.__module__).partition(".")[0] not in _NOT_THE_AUTHORS


__all__ = ["author_code"]
