"""A JSON Schema in; the Arrow type of a column of its values, and the values as that type holds them, out.

Whatever no type holds (a union, an object whose keys are not known, any JSON) is text: what is text already as it is, all else as
JSON. Keys of an object that its schema does not name have no place in a struct, and are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_SCALARS = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool_"}
_LARGEST = 2**63
Root = Mapping[str, Any]


def arrow_type(schema: Any, root: Root | None = None, seen: tuple[str, ...] = ()) -> Any:
    """The type; null is in every type. ``seen`` are the references that led here: one that leads to itself is text."""
    import pyarrow as pa

    if not isinstance(schema, Mapping):
        return pa.string()
    root = schema if root is None else root
    if (reference := schema.get("$ref")) is not None:
        found = None if reference in seen else _referred(str(reference), root)
        return pa.string() if found is None else arrow_type(found, root, (*seen, reference))
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, Sequence):
        return _common([_of_value(value) for value in values if value is not None])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema and "properties" not in schema:
            branches = [branch for branch in schema[key] if branch != {"type": "null"}]
            if key == "allOf" and len(branches) > 1:  # what holds for all of them together is in none alone
                return pa.string()
            return _common([arrow_type(branch, root, seen) for branch in branches])
    named = schema.get("type")
    kinds = [kind for kind in ([named] if isinstance(named, str) else named or ()) if kind != "null"]
    return _common([_of_kind(kind, schema, root, seen) for kind in kinds])


def fitted(value: Any, kind: Any) -> Any:
    """The value as the type holds it. Raises ``ValueError`` for a number that is too large, or a value of another kind."""
    import pyarrow.types as t

    if value is None:
        return None
    if t.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if t.is_struct(kind):
        _see(isinstance(value, Mapping), value, "an object")
        return {field.name: fitted(value.get(field.name), field.type) for field in kind}
    if t.is_list(kind):
        _see(isinstance(value, Sequence) and not isinstance(value, str), value, "a list")
        return [fitted(inner, kind.value_type) for inner in value]
    if t.is_boolean(kind):
        _see(isinstance(value, bool), value, "true or false")
        return value
    _see(isinstance(value, int | float) and not isinstance(value, bool), value, "a number")
    if t.is_integer(kind):
        _see(int(value) == value and -_LARGEST <= value < _LARGEST, value, "a whole number of 64 bits")
        return int(value)
    try:
        return float(value)
    except OverflowError:
        raise ValueError("the answer has a number that no 64 bits hold") from None


def _see(holds: bool, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"the answer has {json.dumps(value, ensure_ascii=False)[:80]} in the place of {wanted}")


def _of_kind(kind: str, schema: Root, root: Root, seen: tuple[str, ...]) -> Any:
    import pyarrow as pa

    if kind in _SCALARS:
        return getattr(pa, _SCALARS[kind])()
    if kind == "array" and "prefixItems" not in schema and isinstance(schema.get("items"), Mapping):
        return pa.list_(arrow_type(schema["items"], root, seen))
    if kind == "object" and schema.get("properties"):
        return pa.struct([(name, arrow_type(inner, root, seen)) for name, inner in schema["properties"].items()])
    return pa.string()


def _of_value(value: Any) -> Any:
    import pyarrow as pa

    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return kinds.get(type(value), pa.string())


def _common(types: Sequence[Any]) -> Any:
    """The type that all of them are; whole and other numbers are numbers; anything else is text."""
    import pyarrow as pa

    distinct = set(types)
    if distinct == {pa.int64(), pa.float64()}:
        return pa.float64()
    return types[0] if len(distinct) == 1 else pa.string()


def _referred(reference: str, root: Root) -> Any:
    """What a reference within the schema names; None for any other."""
    found: Any = root
    if not reference.startswith("#"):
        return None
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


__all__ = ["arrow_type", "fitted"]
