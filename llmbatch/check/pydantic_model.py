"""The answer is JSON that a pydantic model accepts; the value is the model's own JSON form of it.

Strict, because pydantic would otherwise turn ``"12"`` into 12 and so repair an answer that the model's JSON Schema
refuses; a model whose config says ``strict=False`` is taken at its word. What a model does by itself stays: defaults
are filled in, validators may change values, and keys it does not know are dropped unless its config says
``extra="forbid"``.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError

from llmbatch.check.base import Kind, OutputSettings, Reading, failed
from llmbatch.check.json_schema import list_problems, path_of, spec_of
from llmbatch.check.strict_json import JsonError, parse
from llmbatch.core.errors import JobError, RunError, SchemaError
from llmbatch.core.imports import load_object
from llmbatch.core.types import Constraint, FailureKind
from llmbatch.core.words import clip, quote

_ERRORS_SHOWN = 5


def make(settings: OutputSettings) -> Kind:
    """Raises ``JobError`` where the path names no pydantic model, ``SchemaError`` where it has no JSON Schema."""
    import_path = str(settings.json_schema)
    model = load_object(import_path)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise JobError(f"{import_path} is not a pydantic model but {quote(repr(model), 80)}")
    strict = model.model_config.get("strict", True)

    def read(text: str) -> Reading:
        try:
            parse(text)  # stricter than pydantic's parser, which takes the last of two equal keys
            value = model.model_validate_json(text, strict=strict).model_dump(mode="json", by_alias=True)
        except JsonError as error:
            return failed(FailureKind.INVALID_JSON, str(error))
        except ValidationError as error:
            return failed(FailureKind.SCHEMA, _explain(error))
        except Exception as error:
            raise RunError(
                f"the pydantic model {import_path} raised {type(error).__name__}: {error}, on the answer"
                f" {quote(text, 200)}; to refuse an answer its validators may raise ValueError or AssertionError alone"
            ) from error
        return Reading(value, None, isinstance(value, dict | list | str))

    return Kind(_constraint(model, import_path) if settings.constrained else None, read)


def _constraint(model: type[BaseModel], import_path: str) -> Constraint:
    from llmbatch.check import json_schema

    try:
        schema: dict[str, Any] = model.model_json_schema()
    except PydanticUserError as error:
        raise SchemaError(
            f"{import_path} has no JSON Schema, which constrained decoding needs: {error.message}; change the model,"
            " or set constrained: false"
        ) from error
    json_schema.of_schema(schema)  # refuses a model that accepts nothing
    return Constraint("json", spec_of(schema))


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [clip(f"{path_of(problem['loc'])}: {problem['msg']}", 200) for problem in problems[:_ERRORS_SHOWN]]
    return list_problems(shown, len(problems))
