"""Gemini's ``responseSchema``, the part of OpenAPI's that it has with types in capitals, in; a JSON Schema out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmbatch.core.words import near, short, type_name

_TYPES = {
    "STRING": "string",
    "NUMBER": "number",
    "INTEGER": "integer",
    "BOOLEAN": "boolean",
    "ARRAY": "array",
    "OBJECT": "object",
    "NULL": "null",
}
_FORMATS = frozenset({"date-time", "date", "time", "duration"})
"""Formats of texts that say how the answer is to look. The others that the original has are widths of numbers, and ``enum``."""
_WHOLE = frozenset({"minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"})
_AS_IT_IS = frozenset({"title", "description", "default", "pattern", "minimum", "maximum", "required"})
_SCHEMAS = frozenset({"items", "anyOf", "prefixItems", "properties"})
_OTHERS = frozenset({"type", "format", "nullable", "enum", "example", "propertyOrdering", "additionalProperties"})
_KNOWN = frozenset({*_WHOLE, *_AS_IT_IS, *_SCHEMAS, *_OTHERS})


class SchemaProblem(ValueError):
    """A schema asks for what is not known here, in words that name the place in it."""


def camel_case(name: str) -> str:
    """``top_k`` as ``topK``: Google's JSON takes names either way."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def json_schema(schema: Any, place: str) -> dict[str, Any]:
    """The same as a JSON Schema: an object with named properties has no others, in the order that is asked for.

    Raises ``SchemaProblem``.
    """
    if not isinstance(schema, Mapping):
        raise SchemaProblem(f"{place} must be an object, and is of type {type_name(schema)}")
    given = {camel_case(str(key)): value for key, value in schema.items() if value is not None}
    for key in given:
        if key not in _KNOWN:
            raise SchemaProblem(
                f"{place}.{key} is not supported{near(key, _KNOWN)}; responseJsonSchema takes any JSON Schema"
            )
    made: dict[str, Any] = {}
    if (kind := _type(given.get("type"), place)) is not None:
        made["type"] = kind
    for key, value in given.items():
        if key in _AS_IT_IS:
            made[key] = value
        elif key in _WHOLE:
            made[key] = whole(value, f"{place}.{key}")
        elif key in _SCHEMAS:
            made[key] = _INNER[key](value, f"{place}.{key}")
    if "enum" in given:
        made["enum"] = _texts(given["enum"], f"{place}.enum")
    if given.get("format") in _FORMATS:
        made["format"] = given["format"]
    if "properties" in made:
        made["properties"] = _in_order(made["properties"], given.get("propertyOrdering"), place)
        made["additionalProperties"] = False
    if "additionalProperties" in given:
        others = given["additionalProperties"]
        made["additionalProperties"] = (
            others if isinstance(others, bool) else json_schema(others, f"{place}.additionalProperties")
        )
    return _nullable(made) if given.get("nullable") is True else made


def whole(value: Any, place: str) -> int:
    """A whole number as Google's JSON may have it: as a number, one with a point, or text. Raises ``SchemaProblem``."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SchemaProblem(f"{place} must be a whole number, and is {short(value)}")
    return value


def _type(given: Any, place: str) -> str | None:
    if given is None or given == "TYPE_UNSPECIFIED":
        return None
    kind = _TYPES.get(given.upper()) if isinstance(given, str) else None
    if kind is None:
        raise SchemaProblem(f"{place}.type is {short(given)}; known are {', '.join(_TYPES)}")
    return kind


def _each(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise SchemaProblem(f"{place} must be a list, and is of type {type_name(value)}")
    return [json_schema(item, f"{place}[{number}]") for number, item in enumerate(value)]


def _properties(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SchemaProblem(f"{place} must be an object, and is of type {type_name(value)}")
    return {str(name): json_schema(item, f"{place}.{name}") for name, item in value.items()}


_INNER: Mapping[str, Callable[[Any, str], Any]] = {
    "items": json_schema,
    "anyOf": _each,
    "prefixItems": _each,
    "properties": _properties,
}


def _texts(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SchemaProblem(f"{place} must be a list of values, and is {short(value)}")
    return list(value)


def _in_order(properties: dict[str, Any], order: Any, place: str) -> dict[str, Any]:
    """The properties in the order in which they are to be written; those that it does not name come last."""
    if order is None:
        return properties
    if not isinstance(order, list) or any(name not in properties for name in order):
        raise SchemaProblem(
            f"{place}.propertyOrdering must be a list of names of its properties, and is {short(order)}"
        )
    return {name: properties[name] for name in dict.fromkeys([*order, *properties])}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}
