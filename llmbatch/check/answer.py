"""What a job or a request asks of an answer in; its check out: cut off, blank, the kind's word, then the author's reject rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch.check import KINDS, KINDS_OF_ROWS
from llmbatch.check.base import Kind, OutputSettings
from llmbatch.check.reject import Rule, make_rules
from llmbatch.check.strict_json import JsonError, parse
from llmbatch.core.check import MESSAGE_LIMIT, Check, Verdict
from llmbatch.core.errors import SchemaError
from llmbatch.core.imports import is_import_path
from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, FailureKind
from llmbatch.core.words import clip, short

_COMPILED_PER_REQUEST = 256
_FREE_TEXT = OutputSettings()
_NO_ROW: Mapping[str, Any] = {}
_EMPTY = Failure(FailureKind.EMPTY, "the answer is empty")


class AnswerCheck:
    """The one ``Check`` there is: a kind of output and what holds for every kind."""

    __slots__ = ("_read", "_rules", "_settings", "constraint")

    def __init__(self, kind: Kind, settings: OutputSettings = _FREE_TEXT, rules: tuple[Rule, ...] = ()) -> None:
        self.constraint: Constraint | None = kind.constraint if settings.constrained else None
        self._read = kind.read
        self._settings = settings
        self._rules = rules

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        settings = self._settings
        whole = not cut_off or settings.allow_truncated
        if whole and not settings.allow_empty and (not text or text.isspace()):
            return Verdict(None, _EMPTY)
        value, failure, complete = self._read(text)
        if cut_off and (failure is not None or not (complete or whole)):
            return Verdict(None, Failure(FailureKind.TRUNCATED, f"the answer was cut off after {len(text)} characters"))
        if failure is not None:
            return Verdict(None, failure)
        for rule in self._rules:
            reason = rule(text, value, _NO_ROW if row is None else row)
            if reason is not None:
                return Verdict(None, Failure(FailureKind.REJECTED, clip(reason, MESSAGE_LIMIT)))
        return Verdict(value, None)


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


def with_content(settings: OutputSettings, base: Path | None = None) -> OutputSettings:
    """The settings with the files that they name read in, so that they say all that is asked of an answer."""
    return _read_files(settings, base or Path())[0]


def check_from_mapping(mapping: Mapping[str, Any], settings: OutputSettings | None = None) -> Check:
    """The check that one request asks for: an OpenAI ``response_format``, or the keys of ``OutputSettings``.

    The mapping is data, so nothing is read or imported for it: a schema is given as itself. ``settings`` are the job's,
    whose other settings hold where the mapping does not say otherwise. Equal
    mappings share one check, and so one constraint. Raises ``SchemaError``, which concerns that request alone.
    """
    job = settings or _FREE_TEXT
    try:
        canonical = json.dumps(mapping, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"the output asked for is not JSON: {error}") from error
    return _check_of_request(canonical, job.reject, job.allow_empty, job.allow_truncated, job.constrained)


@lru_cache(maxsize=_COMPILED_PER_REQUEST)
def _check_of_request(
    canonical: str, reject: tuple[str, ...], allow_empty: bool, allow_truncated: bool, constrained: bool
) -> Check:
    mapping = json.loads(canonical)
    asked = _response_format(mapping) if "type" in mapping else mapping
    if "reject" in asked or isinstance(asked.get("schema", asked.get("json_schema")), str):
        raise SchemaError(
            "a request can give a JSON Schema itself; paths, import paths and reject rules belong in the job"
        )
    try:
        settings = OutputSettings.model_validate(
            {
                "allow_empty": allow_empty,
                "allow_truncated": allow_truncated,
                "constrained": constrained,
                **asked,
                "reject": reject,
            }
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
        raise SchemaError(
            f"the response_format has the type {short(kind)}: known are text, json_object and json_schema"
        )
    holder = mapping.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise SchemaError("the response_format of type json_schema has no object json_schema.schema")
    return {"schema": schema}


def _make(settings: OutputSettings, kinds: Mapping[str, str] = KINDS) -> Check:
    kind: Kind = find(kinds, settings.kind, "kind of output")(settings)
    rules = make_rules(settings.reject)
    return AnswerCheck(kind, settings, rules)


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
        raise SchemaError(f"{path}: a JSON Schema is an object, and this is {clip(json.dumps(schema), 80)}")
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


__all__ = ["AnswerCheck", "check_from_mapping", "make_check"]
