"""The answer is JSON that a JSON Schema accepts: Draft 2020-12, or the draft that ``$schema`` names, with formats.

The validator is jsonschema-rs: the same rules as the ``jsonschema`` package at about a hundredth of its cost per
answer, it never goes to the network, and it can often prove that a schema accepts nothing at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import jsonschema_rs

from llmbatch.check.base import Kind, OutputSettings, Reading, failed
from llmbatch.check.strict_json import JsonError, parse
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind
from llmbatch.core.words import clip

_PLAIN_KEY = re.compile(r"[^\W\d]\w*")
_NOTES = frozenset(
    [
        "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$schema", "$vocabulary", "contentEncoding", "contentMediaType",
        "contentSchema", "default", "definitions", "deprecated", "description", "examples", "readOnly", "title", "writeOnly",
    ]
)  # fmt: skip
"""Keywords that judge no value; those that do:"""
_KEYWORDS = frozenset(
    [
        "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "contains",
        "dependencies", "dependentRequired", "dependentSchemas", "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "format",
        "if", "items", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength",
        "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties", "prefixItems", "properties",
        "propertyNames", "required", "then", "type", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
    ]
)  # fmt: skip
_ERRORS_SHOWN = 5
_ERROR_LENGTH = 200


def make(settings: OutputSettings) -> Kind:
    """Raises ``SchemaError`` for what is not a JSON Schema, refers elsewhere, or provably accepts nothing."""
    assert isinstance(settings.json_schema, dict)  # noqa: S101 - of this kind it is
    schema = settings.json_schema
    if schema.keys() - _NOTES and not schema.keys() & _KEYWORDS:
        fields = ", ".join(map(repr, islice(schema, _ERRORS_SHOWN)))
        raise SchemaError(
            f"the schema has no keyword of JSON Schema, so it would accept any JSON; its keys are {fields}. Fields go below "
            "'properties': {'type': 'object', 'properties': {'name': {'type': 'string'}}, 'required': ['name']}"
        )
    return of_schema(schema)


def of_schema(schema: Mapping[str, Any]) -> Kind:
    """Raises ``SchemaError`` for what is not a JSON Schema, refers elsewhere, or provably accepts nothing."""
    spec = spec_of(schema)
    validator = _validator(json.loads(spec))
    is_valid = validator.is_valid

    def read(text: str) -> Reading:
        try:
            value = parse(text)
        except JsonError as error:
            return failed(FailureKind.INVALID_JSON, str(error))
        if is_valid(value):
            return Reading(value, None, isinstance(value, dict | list | str))
        return failed(FailureKind.SCHEMA, _explain(validator, value))

    return Kind(Constraint("json", spec), read)


def spec_of(schema: Mapping[str, Any]) -> str:
    """The schema as the engine gets it, with its keys in their order: in that order the model has to write them."""
    try:
        return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is not JSON: {error}") from error


def path_of(keys: list[str | int] | tuple[str | int, ...]) -> str:
    """A place in a JSON value, as in ``$.items[0]['odd key']``."""
    return "$" + "".join(
        f"[{key}]" if isinstance(key, int) else f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{key!r}]" for key in keys
    )


def list_problems(problems: list[str], total: int) -> str:
    """Some of an answer's problems as one message."""
    more = f"; and {total - len(problems)} more" if total > len(problems) else ""
    return "; ".join(problems) + more


def _validator(schema: Any) -> jsonschema_rs.Validator:
    try:
        validator = jsonschema_rs.validator_for(schema, validate_formats=True, offline=True)
    except jsonschema_rs.ValidationError as error:
        where = f" (at {path_of(error.instance_path)})" if error.instance_path else ""
        hint = "; references are not fetched: put the definition under $defs" if "etriev" in error.message else ""
        raise SchemaError(f"not a valid JSON Schema{where}: {clip(error.message, 300)}{hint}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise SchemaError(f"not a valid JSON Schema: {clip(str(error), 300)}") from error
    if _accepts_nothing(schema):
        raise SchemaError(
            "no answer could ever pass this schema: look for limits that contradict each other (minimum above maximum),"
            " an empty enum, a required property that is not allowed, or a reference that needs itself without end"
        )
    return validator


def _accepts_nothing(schema: Any) -> bool:
    """Whether it is proven that the schema accepts no value; it may accept none without this being found."""
    try:
        canonical = jsonschema_rs.canonicalize(schema, validate_formats=True, offline=True)
    except jsonschema_rs.canonical.CanonicalizationError:
        return False  # a schema that the validator took and the prover cannot model
    return canonical.satisfiability() == jsonschema_rs.canonical.Satisfiability.NO


def _explain(validator: jsonschema_rs.Validator, value: Any) -> str:
    errors = list(islice(validator.iter_errors(value), 100))
    return list_problems([_describe(error) for error in errors[:_ERRORS_SHOWN]], len(errors))


def _describe(error: jsonschema_rs.ValidationError) -> str:
    message = error.message
    # Of alternatives none of which fits, the message says only that; what is wrong with each is what helps.
    if alternatives := getattr(error.kind, "context", None):
        first = [f"{path_of(each[0].instance_path)} {each[0].message}" for each in alternatives[:3] if each]
        message = "fits none of the alternatives: " + ", or ".join(clip(reason, 80) for reason in first)
    return clip(f"{path_of(error.instance_path)}: {message}", _ERROR_LENGTH)
