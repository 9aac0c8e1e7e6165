"""A constraint in; the fields of a request by which one kind of server holds an answer to it, out. What servers differ in is here.

All of them know ``response_format`` with a JSON Schema. vLLM then lets a model fill its answer with white space, which a weak one
does until it is cut off; it is sent the grammar that the engine in this process makes of the schema, which has none. A choice is
a field of vLLM's own there, and elsewhere a schema with the one field ``answer``, which is taken out of the answer again. A server
that knows no regex or grammar is asked without: the answer's check sends back what does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmbatch.core.types import Constraint
from llmbatch.engines.spacing import as_xgrammar, for_guidance

_FIELD = "answer"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of server knows. ``regex`` and ``grammar`` are field names, ``None`` where it has none."""

    name: str
    structured: str | None = None  # vLLM: the object that holds choice, regex and grammar
    guided: bool = False  # vLLM before 0.12: a field each
    regex: str | None = None
    grammar: str | None = None
    grammars: bool = False  # schemas go as grammars of xgrammar's
    continues: bool = False  # it knows ``continue_final_message``
    max_tokens: str = "max_tokens"  # of a chat request
    # requests at a time, before a better level is found; more where a server lets them wait, and plans ahead
    at_first: int = 64
    tells_waiting: bool = False  # its metrics say how many requests wait in it
    cuts_budgets: bool = False  # to what a prompt leaves of the context; others refuse the request
    loops: str | None = (
        None  # the field that says when an answer runs in circles, and ends; older versions leave it unread
    )

    def fields(self, constraint: Constraint) -> Mapping[str, Any]:
        """The fields that hold an answer to it; none where this kind of server cannot."""
        if constraint.kind == "json":
            return self._json(constraint.spec)
        spec: Any = json.loads(constraint.spec) if constraint.kind == "choice" else constraint.spec
        if self.structured is not None:
            return {f"guided_{constraint.kind}": spec} if self.guided else {self.structured: {constraint.kind: spec}}
        if constraint.kind == "choice":
            one = {"type": "string", "enum": spec}
            return _schema(
                {"type": "object", "properties": {_FIELD: one}, "required": [_FIELD], "additionalProperties": False}
            )
        name = self.regex if constraint.kind == "regex" else self.grammar
        return {} if name is None else {name: spec}

    def _json(self, spec: str) -> Mapping[str, Any]:
        if self.structured is None or self.guided:
            return _schema(json.loads(spec))
        grammar = as_xgrammar(spec) if self.grammars else None
        if grammar is not None:
            return {self.structured: {"grammar": grammar}}
        return _schema(json.loads(for_guidance(spec)))  # what guidance alone heeds

    def holds(self, constraint: Constraint) -> bool:
        """Whether this kind of server can hold an answer to it."""
        return bool(self.fields(constraint))

    def unwrapped(self, text: str, constraint: Constraint | None) -> str:
        """The answer without what it was wrapped in to be held to a choice."""
        if constraint is None or constraint.kind != "choice" or self.structured is not None:
            return text
        try:
            value = json.loads(text)
        except ValueError:
            return text
        chosen = value.get(_FIELD) if isinstance(value, dict) else None
        return chosen if isinstance(chosen, str) else text


VLLM = Dialect(
    "vllm",
    structured="structured_outputs",
    grammars=True,
    continues=True,
    at_first=256,
    tells_waiting=True,
    cuts_budgets=True,
    loops="repetition_detection",
)
OLD_VLLM = Dialect("vllm", structured="", guided=True, continues=True, at_first=256, tells_waiting=True)
DIALECTS = {
    "vllm": VLLM,
    "sglang": Dialect("sglang", regex="regex", grammar="ebnf", continues=True, at_first=256),
    "llamacpp": Dialect("llamacpp", grammar="grammar"),
    "openai": Dialect("openai", max_tokens="max_completion_tokens"),
    "other": Dialect("other"),
}
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp"}
"""What a server's list of models says owns them -> the dialect."""


def vllm_dialect(version: str) -> Dialect:
    """That of a version of vLLM, as its server tells it."""
    numbers = version.split(".")[:2]
    old = len(numbers) == 2 and all(part.isdecimal() for part in numbers) and tuple(map(int, numbers)) < (0, 12)
    return OLD_VLLM if old else VLLM


def _schema(schema: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"name": "output", "schema": schema}
    if _is_strict(schema):
        described["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI takes it as a strict one: each of its objects names all of its fields, requires them, and has no others."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if properties is not None or schema.get("type") == "object":
        names = set(properties or ())
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
            return False
    return all(map(_is_strict, schema.values()))


__all__ = ["DIALECTS", "OWNERS", "VLLM", "Dialect", "vllm_dialect"]
