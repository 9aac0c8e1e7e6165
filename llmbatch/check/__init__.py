"""Check: the text of an answer in, its value or a failure with its kind out. Nothing is ever repaired.

A new kind of output is one file here, one setting and one line in ``KINDS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmbatch.check.answer import AnswerCheck
from llmbatch.check.reject import make_rules
from llmbatch.check.strict_json import JsonError, parse
from llmbatch.check.verdict import Check, Kind, Verdict
from llmbatch.core.errors import SchemaError
from llmbatch.core.imports import is_import_path

_KIND_FIELDS = ("json_schema", "choice", "regex", "grammar")
_COMPILED_PER_REQUEST = 256


class OutputSettings(BaseModel):
    """What an answer must be. At most one of schema, choice, regex and grammar; without any it is free text."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    json_schema: dict[str, Any] | str | None = Field(
        None,
        alias="schema",
        description="a JSON Schema: itself, a .json file, or the import path of a pydantic model (module:Model)",
    )
    choice: tuple[str, ...] | None = Field(
        None, description="the answer is one of these; white space around it does not count"
    )
    regex: str | None = Field(None, description="the whole answer matches this regular expression")
    grammar: str | None = Field(
        None, description="the answer is a sentence of this grammar (Lark or EBNF): its text, or a path"
    )
    constrained: bool = Field(
        True, description="hold the engine to it while it decodes; false: check the answer afterwards only"
    )
    reject: tuple[str, ...] = Field(
        (),
        description="send back answers in which a /pattern/ is found, or that a predicate (package.module:name) refuses",
    )
    allow_empty: bool = Field(False, description="take a blank answer; else it is sent back")

    @model_validator(mode="after")
    def _one_kind(self) -> OutputSettings:
        given = [name.removeprefix("json_") for name in _KIND_FIELDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"an answer has one kind: {' and '.join(given)} cannot be given together")
        return self

    @property
    def kind(self) -> str:
        """The name of the kind of output, as in ``KINDS``."""
        if isinstance(self.json_schema, str):
            return "pydantic_model"
        return next((name for name in _KIND_FIELDS if getattr(self, name) is not None), "text")


def _text(_settings: OutputSettings) -> Kind:
    from llmbatch.check.text import KIND

    return KIND


def _json_schema(settings: OutputSettings) -> Kind:
    from llmbatch.check.json_schema import make

    assert isinstance(settings.json_schema, dict)  # noqa: S101
    return make(settings.json_schema)


def _pydantic_model(settings: OutputSettings) -> Kind:
    from llmbatch.check.pydantic_model import make

    return make(str(settings.json_schema), constrained=settings.constrained)


def _choice(settings: OutputSettings) -> Kind:
    from llmbatch.check.choice import make

    return make(settings.choice or (), constrained=settings.constrained, allow_empty=settings.allow_empty)


def _regex(settings: OutputSettings) -> Kind:
    from llmbatch.check.regex import make

    return make(settings.regex or "")


def _regex_of_row(settings: OutputSettings) -> Kind:
    from llmbatch.check.regex import make_linear

    return make_linear(settings.regex or "")


def _grammar(settings: OutputSettings) -> Kind:
    from llmbatch.check.grammar import make

    return make(settings.grammar or "")


KINDS: dict[str, Callable[[OutputSettings], Kind]] = {
    "text": _text,
    "json_schema": _json_schema,
    "pydantic_model": _pydantic_model,
    "choice": _choice,
    "regex": _regex,
    "grammar": _grammar,
}
KINDS_OF_ROWS = {**KINDS, "regex": _regex_of_row}
"""The same where what is asked for comes from a row."""


def make_check(settings: OutputSettings, base: Path | None = None) -> Check:
    """The check that the job's author asks for. Files are looked up in ``base``, by default the current folder.

    Raises ``SchemaError`` for an output that cannot be used, or that provably no answer could pass, and ``JobError``
    for an import path or reject rule that does not work.
    """
    settings, origin = _read_files(settings, base or Path())
    try:
        return _make(settings)
    except SchemaError as error:
        if origin is None:
            raise
        raise SchemaError(f"{origin}: {error}") from error


def check_from_mapping(mapping: Mapping[str, Any], settings: OutputSettings | None = None) -> Check:
    """The check that one request asks for: an OpenAI ``response_format``, or the keys of ``OutputSettings``.

    The mapping is data, so nothing is read or imported for it: a schema is given as itself. ``settings`` are the job's,
    whose reject rules, ``allow_empty`` and ``constrained`` hold where the mapping does not say otherwise. Equal
    mappings share one check, and so one constraint. Raises ``SchemaError``, which concerns that request alone.
    """
    job = settings or _FREE_TEXT
    try:
        canonical = json.dumps(mapping, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"the output asked for is not JSON: {error}") from error
    return _check_of_request(canonical, job.reject, job.allow_empty, job.constrained)


@lru_cache(maxsize=_COMPILED_PER_REQUEST)
def _check_of_request(canonical: str, reject: tuple[str, ...], allow_empty: bool, constrained: bool) -> Check:
    mapping = json.loads(canonical)
    asked = _response_format(mapping) if "type" in mapping else mapping
    if "reject" in asked or isinstance(asked.get("schema", asked.get("json_schema")), str):
        raise SchemaError(
            "a request can give a JSON Schema itself; paths, import paths and reject rules belong in the job"
        )
    try:
        settings = OutputSettings.model_validate(
            {"allow_empty": allow_empty, "constrained": constrained, **asked, "reject": reject}
        )
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise SchemaError(f"the output asked for is not valid: {'; '.join(problems)}") from None
    return _make(settings, KINDS_OF_ROWS)


def _response_format(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = mapping["type"]
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    if kind != "json_schema":
        raise SchemaError(f"the response_format has the type {kind!r:.80}: known are text, json_object and json_schema")
    holder = mapping.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise SchemaError("the response_format of type json_schema has no object json_schema.schema")
    return {"schema": schema}


def _make(settings: OutputSettings, kinds: Mapping[str, Callable[[OutputSettings], Kind]] = KINDS) -> Check:
    kind = kinds[settings.kind](settings)
    rules = make_rules(settings.reject)
    return AnswerCheck(kind, constrained=settings.constrained, allow_empty=settings.allow_empty, rules=rules)


def _read_files(settings: OutputSettings, base: Path) -> tuple[OutputSettings, Path | None]:
    """The settings with the file that they name read in, and that file."""
    schema, grammar = settings.json_schema, settings.grammar
    if isinstance(schema, str) and not (is_import_path(schema) and not (base / schema).is_file()):
        path = base / schema
        return settings.model_copy(update={"json_schema": _schema_in(path)}), path
    if grammar is not None and _names_a_file(grammar, base):
        path = base / grammar
        return settings.model_copy(update={"grammar": _read(path)}), path
    return settings, None


def _schema_in(path: Path) -> dict[str, Any]:
    text = _read(path, "; a pydantic model is named as package.module:Model")
    try:
        schema = parse(text)
    except JsonError as error:
        raise SchemaError(f"{path}: {error}") from None
    if not isinstance(schema, dict):
        raise SchemaError(f"{path}: a JSON Schema is an object, and this is {json.dumps(schema)[:80]}")
    return schema


def _names_a_file(grammar: str, base: Path) -> bool:
    # Each rule of a grammar has a colon, and the name of a file hardly ever has one.
    if "\n" in grammar:
        return False
    return ":" not in grammar or (len(grammar) < 256 and (base / grammar).is_file())


def _read(path: Path, hint: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SchemaError(f"{path}: there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from error


_FREE_TEXT = OutputSettings()

__all__ = ["KINDS", "Check", "Kind", "OutputSettings", "Verdict", "check_from_mapping", "make_check"]
