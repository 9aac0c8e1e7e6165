"""Steps and what is known of their prompts in; what they refer to and will never find, in words, out, before there is a row.

What a prompt takes is an earlier answer where a step is called so, else a field of the row. Whether rows have it only they
can tell; that a step comes later, or that its answer has no such key, is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llmbatch.core.sandbox import Expression
from llmbatch.core.words import near
from llmbatch.programs.base import Need, PromptFacts
from llmbatch.programs.steps import ROW, Outputs, Step, plain_steps

Schema = Mapping[str, Any]
Known = dict[str, list[Schema]]
"""Names of answers -> the JSON Schemas that they may have: several, where steps have the same name."""

_TEXT: Schema = {"type": "string"}
_ANY: Schema = {}


class Steps(NamedTuple):
    """All steps of a program. ``given`` is what it knows before them; ``where`` is their place in its settings."""

    steps: Sequence[Step]
    prompts: Mapping[str, PromptFacts]
    given: Known
    where: str = "steps"


def problems(all_steps: Steps, output: Outputs | None) -> Iterator[str]:
    """What is wrong with steps and the output that is made of their answers."""
    names = {step.name for step in plain_steps(all_steps.steps)}
    if taken := names & all_steps.given.keys():
        yield f"{all_steps.where}: {min(taken)!r} cannot name a step: it is something else already"
        return
    known = dict(all_steps.given)
    yield from _of_steps(all_steps, all_steps.steps, all_steps.where, known, frozenset())
    for place, expression in _expressions(output):
        yield from _of_expression(all_steps, expression, place, known, frozenset())


def schema_of(facts: PromptFacts) -> Schema:
    """What an answer to a prompt is; several samples are a list."""
    if (facts.sampling.get("n") or 1) > 1:
        return {"type": "array"}
    return _TEXT if facts.answer is None else facts.answer


def part_of(schema: Schema, key: str) -> Schema | None:
    """What is under a key of an answer with this schema; None where there is no such key."""
    if schema is _ANY or not schema:
        return _ANY
    schema = _resolved(schema, schema)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind == "string":
        return _ANY if hasattr(str, key) else None
    if kind == "array":
        return _ANY if hasattr(list, key) else None
    if kind != "object":
        return _ANY if kind is None else None
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties"):
        return _ANY
    if key in properties:
        return {**_resolved(properties[key], schema), **{k: schema[k] for k in ("$defs", "definitions") if k in schema}}
    return _ANY if hasattr(dict, key) or schema.get("patternProperties") else None


def type_of(schema: Schema) -> str | None:
    """The JSON type of an answer with this schema, where it has one."""
    schema = _resolved(schema, schema)
    kind = schema.get("type", "object" if "properties" in schema else None)
    return kind if isinstance(kind, str) else None


def _of_steps(
    everything: Steps, steps: Sequence[Step], where: str, known: Known, maybe: frozenset[str]
) -> Iterator[str]:
    """``known`` grows by what the steps answer; ``maybe`` are names that have an answer the second time, within a repetition."""
    for number, step in enumerate(steps):
        place = f"{where}[{number}]"
        inside = maybe | {each.name for each in plain_steps((step,))} if step.repeat > 1 else maybe
        if step.when is not None:
            yield from _of_expression(everything, step.when, f"{place}.when", known, inside)
        if step.steps:
            yield from _of_steps(everything, step.steps, f"{place}.steps", known, inside)
        else:
            yield from _of_prompt(everything, step, f"{place} ({step.name})", known, inside)
            known[step.name] = [*known.get(step.name, ()), schema_of(everything.prompts[step.asks])]
            if step.stop_if is not None:
                yield from _of_expression(everything, step.stop_if, f"{place}.stop_if", known, inside)
        if step.until is not None:
            names = [each.name for each in plain_steps(step.once)]
            if not step.until.names & set(names):
                yield f"{place}.until ({step.until.source}): looks at none of the steps that are repeated: {', '.join(names)}"
            yield from _of_expression(everything, step.until, f"{place}.until", known, inside)


def _of_prompt(everything: Steps, step: Step, place: str, known: Known, maybe: frozenset[str]) -> Iterator[str]:
    names = {each.name for each in plain_steps(everything.steps)}
    for field, need in everything.prompts[step.asks].needs.items():
        name, *path = field.split(".")
        called = f"{place}: the prompt {step.asks} takes {field!r}"
        if name in known:
            for schema in known[name]:
                yield from _of_need(called, schema, path, need)
        elif name in names and need.required and name in maybe:
            yield f"{called}, and the first time there is no answer of {name} yet: give the variable a default"
        elif name in names and name not in maybe:
            later = "is this step itself" if name == step.name else "comes later"
            advice = "put it before, or give the step another name if a field of the row is meant"
            yield f"{called}, and the step {name} {later}: {advice}"


def _of_need(called: str, schema: Schema, path: Sequence[str], need: Need) -> Iterator[str]:
    for key in path:
        if (inner := part_of(schema, key)) is None:
            yield f"{called}, {no_key(key, schema)}"
            return
        schema = inner
    for key in sorted(need.parts):
        if part_of(schema, key) is None:
            yield f"{called} and of it {key!r}, {no_key(key, schema)}"
    seen = type_of(schema)
    if seen is not None and need.type not in ("any", seen) and (need.type, seen) != ("number", "integer"):
        yield f"{called} as {need.type}, and the answer is of type {seen}"


def _of_expression(
    everything: Steps, expression: Expression, place: str, known: Known, maybe: frozenset[str]
) -> Iterator[str]:
    names = {each.name for each in plain_steps(everything.steps)}
    called = f"{place} ({expression.source})"
    for name in sorted(expression.names - known.keys() - maybe - {ROW}):
        if name in names:
            yield f"{called}: looks at the step {name}, which comes later"
        else:
            there = ", ".join([*known, f"{ROW} for the row's fields"])
            yield f"{called}: there is no step {name!r}{near(name, known)}; known here are {there}"
    for name, key in sorted(expression.parts):
        for schema in known.get(name, ()):
            if part_of(schema, key) is None:
                yield f"{called}: takes {name}.{key}, {no_key(key, schema)}"


def no_key(key: str, schema: Schema) -> str:
    """That an answer with this schema has no such key, with those it has."""
    schema = _resolved(schema, schema)
    keys = list(schema.get("properties", ()))
    if not keys:
        return f"and the answer is of type {type_of(schema)}, without keys"
    return f"and the answer has no {key!r}{near(key, keys)}: it has {', '.join(keys)}"


def _expressions(output: Outputs | None) -> Iterator[tuple[str, Expression]]:
    if isinstance(output, Expression):
        yield "output", output
    for name, each in output.items() if isinstance(output, Mapping) else ():
        yield f"output.{name}", each


def _resolved(schema: Any, root: Schema) -> Schema:
    """A schema, or what it refers to within its root; an empty one for what cannot be told."""
    for _ in range(8):
        if not isinstance(schema, Mapping):
            return _ANY
        if any(key in schema for key in ("anyOf", "oneOf", "allOf", "if", "not")):
            return _ANY
        if "$ref" not in schema:
            return schema
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        schema = target
    return _ANY


__all__ = ["Known", "Schema", "Steps", "no_key", "part_of", "problems", "schema_of", "type_of"]
