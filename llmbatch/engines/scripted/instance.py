"""A constraint in, a small text that fits it out: what the scripted engine answers to a constrained request.

It covers the schemas that people write for outputs; for keywords it does not know (``pattern``, ``not``, ``if``) its answer may be
invalid, and then the check says so, as with a real model.
"""

from __future__ import annotations

import json
from typing import Any

from llmbatch.core.types import Constraint

_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "a@example.org",
    "uri": "https://example.org",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "ipv4": "127.0.0.1",
}
_MAX_DEPTH = 32


def smallest_instance(constraint: Constraint) -> str:
    """A text for a constraint; for a regex or a grammar just ``scripted``, which rarely fits."""
    if constraint.kind == "choice":
        return str(json.loads(constraint.spec)[0])
    if constraint.kind == "json":
        schema = json.loads(constraint.spec)
        return json.dumps(_instance(schema, schema, 0), ensure_ascii=False)
    return "scripted"


def _instance(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return _instance(_resolve(schema["$ref"], root), root, depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return _instance(schema[keyword][0], root, depth + 1)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _instance(properties.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            return [_instance(schema.get("items", {}), root, depth + 1)] * schema.get("minItems", 0)
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return min(low, schema["maximum"]) if "maximum" in schema else low
        case "boolean":
            return False
        case "null":
            return None
        case _:
            text = _FORMATS.get(schema.get("format", ""), "")
            return text.ljust(schema.get("minLength", 0), "x")


def _resolve(ref: str, root: Any) -> Any:
    target = root
    for part in ref.removeprefix("#").split("/"):
        if part and isinstance(target, dict):
            target = target.get(part.replace("~1", "/").replace("~0", "~"))
    return target
