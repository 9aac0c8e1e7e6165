"""What a job or a request asks of an answer in; its check out: cut off, blank, the kind's word, then the rules."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch.check import KINDS, KINDS_OF_ROWS, RULES
from llmbatch.check.base import Kind, OutputSettings
from llmbatch.check.glossary import with_terms
from llmbatch.check.rule import Answer, Rule
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
    """The one ``Check`` there is: a kind of output, what holds for every kind, and the rules.

    ``names`` are what its rules hold an answer against: a row must hold these, which ``misfit`` looks at and ``of`` gives.
    """

    __slots__ = ("_early", "_late", "_of_requests", "_read", "_settings", "constraint", "names")

    def __init__(self, kind: Kind, settings: OutputSettings = _FREE_TEXT, rules: tuple[Rule, ...] = ()) -> None:
        self.constraint: Constraint | None = kind.constraint if settings.constrained else None
        self.names = tuple(dict.fromkeys(name for rule in rules for name in rule.names))
        self._read = kind.read
        self._settings = settings
        self._early = tuple(rule for rule in rules if rule.early)
        self._late = tuple(rule for rule in rules if not rule.early)
        self._of_requests: OrderedDict[str, AnswerCheck] = OrderedDict()

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        settings, row = self._settings, _NO_ROW if row is None else row
        whole = not cut_off or settings.allow_truncated
        if whole and not settings.allow_empty and (not text or text.isspace()):
            return Verdict(None, _EMPTY)
        if self._early and (failure := _refused(self._early, Answer(text, text, row))) is not None:
            return Verdict(None, failure)
        value, failure, complete = self._read(text)
        if cut_off and (failure is not None or not (complete or whole)):
            return Verdict(None, Failure(FailureKind.TRUNCATED, f"the answer was cut off after {len(text)} characters"))
        if failure is not None:
            return Verdict(None, failure)
        if self._late and (failure := _refused(self._late, Answer(text, value, row))) is not None:
            return Verdict(None, failure)
        return Verdict(value, None)

    def misfit(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with what a row holds, so that its answer could not be judged; None where nothing is."""
        return next((said for rule in self._late if (said := rule.misfit(row)) is not None), None)

    def of(self, values: Mapping[str, Any]) -> Check:
        """The check of the answers of one row, which holds ``values`` under the names."""
        return _OfRow(self, values)

    def for_request(self, mapping: Mapping[str, Any]) -> AnswerCheck:
        """The check of a request that says itself what it asks for: an OpenAI ``response_format``, or keys of ``OutputSettings``.

        The mapping is data, so nothing is read or imported for it: a schema is given as itself. What it does not say is as here,
        and so are the rules. Equal mappings share one check, and so one constraint. Raises ``SchemaError``, which concerns that
        request alone.
        """
        try:
            canonical = json.dumps(mapping, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise SchemaError(f"the output asked for is not JSON: {error}") from error
        made = self._of_requests.get(canonical)
        if made is None:
            made = self._of_requests[canonical] = self._make_for_request(json.loads(canonical))
            if len(self._of_requests) > _COMPILED_PER_REQUEST:
                self._of_requests.popitem(last=False)
        return made

    def _make_for_request(self, mapping: Mapping[str, Any]) -> AnswerCheck:
        asked = _response_format(mapping) if "type" in mapping else mapping
        rule = next((key for key in asked if key in RULES), None)
        if rule is not None or isinstance(asked.get("schema", asked.get("json_schema")), str):
            raise SchemaError(
                f"a request can give a JSON Schema itself; paths, import paths and {rule or 'reject'} rules belong in the job"
            )
        ours = self._settings
        others = {
            "allow_empty": ours.allow_empty,
            "allow_truncated": ours.allow_truncated,
            "constrained": ours.constrained,
        }
        try:
            settings = OutputSettings.model_validate({**others, **asked})
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
            raise SchemaError(f"the output asked for is not valid: {'; '.join(problems)}") from None
        return AnswerCheck(_kind(settings, KINDS_OF_ROWS), settings, (*self._early, *self._late))


class _OfRow:
    """Implements ``Check`` for the answers of one row, of which it holds no more than the rules need."""

    __slots__ = ("_check", "_values", "constraint")

    def __init__(self, check: AnswerCheck, values: Mapping[str, Any]) -> None:
        self.constraint = check.constraint
        self._check = check
        self._values = values

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        return self._check(text, {**(row or _NO_ROW), **self._values}, cut_off=cut_off)


def _refused(rules: Sequence[Rule], answer: Answer) -> Failure | None:
    for rule in rules:
        reason = rule.judge(answer)
        if reason is not None:
            return Failure(rule.kind, clip(reason, MESSAGE_LIMIT))
    return None


def make_check(settings: OutputSettings, base: Path | None = None) -> AnswerCheck:
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


def _make(settings: OutputSettings) -> AnswerCheck:
    for name, given in settings.rules():
        if settings.json_schema is None and (part := getattr(given, "part", None)) is not None:
            raise SchemaError(
                f"answer.{name}.part is {part!r}, a key of a JSON answer, and without a schema the answer is text"
            )
    rules = tuple(find(RULES, name, "rule")(given) for name, given in settings.rules())
    return AnswerCheck(_kind(settings, KINDS), settings, rules)


def _kind(settings: OutputSettings, kinds: Mapping[str, str]) -> Kind:
    kind: Kind = find(kinds, settings.kind, "kind of output")(settings)
    return kind


def _read_files(settings: OutputSettings, base: Path) -> tuple[OutputSettings, Path | None]:
    """The settings with the files that they name read in, and the one of the kind of output."""
    if settings.glossary is not None:
        settings = settings.model_copy(update={"glossary": with_terms(settings.glossary, base)})
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


__all__ = ["AnswerCheck", "make_check", "with_content"]
