"""The text of a SQL type in, as ``STRUCT<item: STRING, quantity: INT>``; the JSON Schema of what it describes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmbatch.core.imports import extra

_SCALARS = {
    "STRING": "string", "TEXT": "string", "VARCHAR": "string", "CHAR": "string", "DATE": "string", "TIMESTAMP": "string",
    "TIMESTAMPTZ": "string", "TIMESTAMPNTZ": "string",
    "TINYINT": "integer", "SMALLINT": "integer", "INT": "integer", "BIGINT": "integer",
    "FLOAT": "number", "DOUBLE": "number", "DECIMAL": "number", "BOOLEAN": "boolean",
}  # fmt: skip


@dataclass(frozen=True)
class Type:
    """One type. ``sql`` is its text as Spark takes it; ``fields`` those of a struct, empty for any other."""

    sql: str
    schema: Mapping[str, Any]
    fields: Mapping[str, Type] = field(default_factory=dict)

    @cached_property
    def nested(self) -> bool:
        """Whether its values are JSON objects or lists."""
        return self.schema.get("type") in ("object", "array")


def type_of(text: str) -> Type:
    """The type that a text describes. Raises ``ValueError``, in words, for one that is none or has no form in JSON.

    A field may be null unless it is NOT NULL, as in SQL, but is always there; lists, structs and maps may be empty instead.
    """
    sqlglot = extra("sqlglot", "spark", "reading SQL types")
    try:
        parsed = sqlglot.parse_one(text, into=sqlglot.exp.DataType, dialect="databricks")
    except sqlglot.errors.SqlglotError as error:
        said = str(error).partition("\n")[0].partition(" Line ")[0].rstrip(".")
        raise ValueError(f"{text!r} is no type: {said}") from None
    return _type(parsed, sqlglot.exp)


def _type(parsed: Any, exp: Any) -> Type:
    sql = parsed.sql(dialect="databricks")
    name = parsed.this.value if isinstance(parsed.this, exp.DataType.Type) else str(parsed.this)
    inner = [each for each in parsed.expressions if isinstance(each, exp.DataType | exp.ColumnDef)]
    if name == "STRUCT":
        fields = {each.name: each for each in inner if isinstance(each, exp.ColumnDef)}
        if not fields:
            raise ValueError(f"{sql} has no fields")
        types = {key: _type(each.kind, exp) for key, each in fields.items()}
        properties = {key: _field(types[key], fields[key], exp) for key in fields}
        schema = {
            "type": "object", "properties": properties, "required": list(fields), "additionalProperties": False,
        }  # fmt: skip
        return Type(sql, schema, types)
    if name in ("ARRAY", "LIST"):
        if len(inner) != 1:
            raise ValueError(f"{sql} does not say what it is a list of")
        return Type(sql, {"type": "array", "items": dict(_type(inner[0], exp).schema)})
    if name == "MAP":
        if len(inner) != 2 or _type(inner[0], exp).schema.get("type") != "string":
            raise ValueError(f"{sql}: a map of JSON is MAP<STRING, ...>")
        return Type(sql, {"type": "object", "additionalProperties": dict(_type(inner[1], exp).schema)})
    if name not in _SCALARS:
        raise ValueError(f"{sql} has no form in JSON; known are {', '.join(_SCALARS)}, ARRAY, MAP and STRUCT")
    return Type(sql, {"type": _SCALARS[name]})


def _field(kind: Type, column: Any, exp: Any) -> dict[str, Any]:
    never_null = any(isinstance(each.kind, exp.NotNullColumnConstraint) for each in column.constraints)
    schema = dict(kind.schema)
    said = next(
        (each.kind.this.name for each in column.constraints if isinstance(each.kind, exp.CommentColumnConstraint)), None
    )
    if said:
        schema["description"] = said
    return schema if never_null or kind.nested else {**schema, "type": [schema["type"], "null"]}


__all__ = ["Type", "type_of"]
