"""``ai_query``: the values of its arguments in, by Databricks' names; the call that they ask for out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.sampling import SAMPLING, sampling_problem
from llmbatch.core.words import near, short, type_name
from llmbatch.integrations.spark.base import Call, Endpoints, Parameter, SqlFunction, job_for, plain_number
from llmbatch.integrations.spark.ddl import Type, type_of

_NOT_ONE_TEXT = frozenset({"n", "logprobs", "prompt_logprobs", "logprob_token_ids"})
_PARAMETERS = frozenset(SAMPLING) - _NOT_ONE_TEXT
_RENAMED = {"max_completion_tokens": "max_tokens"}
_FORMAT_KEYS = frozenset({"type", "json_schema"})
_SCHEMA_KEYS = frozenset({"name", "schema", "strict", "description"})
_ANY_OBJECT = {"type": "object"}


class SchemaText(str):
    """A return type that only Spark knows: the SQL of a ``schema_of_json(...)``."""

    __slots__ = ()


def _call(endpoints: Endpoints, given: Mapping[str, Any]) -> Call:
    profile = endpoints.job(given["endpoint"])
    fails = given["failOnError"]
    if not isinstance(fails, bool):
        raise JobError(f"ai_query: failOnError is true or false, not {short(fails)}")
    returns = _return_type(given["returnType"])
    schema = _schema(given["responseFormat"])
    if schema is None and isinstance(returns, SchemaText):
        schema = _ANY_OBJECT
    elif schema is None and isinstance(returns, Type) and returns.nested:
        schema = returns.schema
    sampling, answer = _sampling(given["modelParameters"]), None if schema is None else {"schema": schema}
    # so many tokens of text were asked for; JSON that is cut off is of no use
    job = job_for(profile, sampling=sampling, answer=answer, once=answer is None and "max_tokens" in sampling)
    # what the profile alone asks of an answer is a check of the job's
    as_it_came = not endpoints.strict and (schema is not None or not profile.get("answer"))
    return Call(job, returns if isinstance(returns, SchemaText) else returns.sql, fails, as_it_came)


def _return_type(given: Any) -> Type | SchemaText:
    if isinstance(given, SchemaText):
        return given
    if given is None:
        return type_of("STRING")
    if not isinstance(given, str):
        raise JobError(f"ai_query: returnType is the text of a type, such as 'STRUCT<a: INT>', not {short(given)}")
    try:
        return type_of(given)
    except ValueError as error:
        raise JobError(f"ai_query: returnType: {error}") from None


def _sampling(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise JobError(f"ai_query: modelParameters is a named_struct('max_tokens', 64, ...), not {short(given)}")
    sampling: dict[str, Any] = {}
    for key, value in given.items():
        name = _RENAMED.get(key, key)
        if name not in _PARAMETERS:
            raise JobError(
                f"ai_query: modelParameters: {key!r} is not known{near(key, _PARAMETERS)}; known are "
                f"{', '.join(sorted(_PARAMETERS))}"
            )
        value = plain_number(value)
        if value is None:
            continue
        if problem := sampling_problem(name, value):
            raise JobError(f"ai_query: modelParameters: {key} {problem}")
        sampling[name] = value
    return sampling


def _schema(given: Any) -> Any:
    """The JSON Schema of a response format; None for plain text."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise JobError(f"ai_query: responseFormat is a text, not {short(given)}")
    return _json_format(given) if given.lstrip().startswith("{") else _ddl_format(given)


def _json_format(text: str) -> Any:
    try:
        asked = json.loads(text)
    except ValueError as error:
        raise JobError(f"ai_query: responseFormat is no JSON: {error}") from None
    _only(asked, _FORMAT_KEYS, "responseFormat")
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return _ANY_OBJECT
    if kind != "json_schema":
        raise JobError(f"ai_query: responseFormat.type is text, json_object or json_schema, not {short(kind)}")
    described = asked.get("json_schema")
    if not isinstance(described, Mapping):
        raise JobError(
            f"ai_query: responseFormat.json_schema is an object with name and schema, not {short(described)}"
        )
    _only(described, _SCHEMA_KEYS, "responseFormat.json_schema")
    schema = described.get("schema")
    if not isinstance(schema, Mapping):
        raise JobError(
            f"ai_query: responseFormat.json_schema.schema is a JSON Schema (an object), and is of type {type_name(schema)}"
        )
    return schema


def _only(given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise JobError(
                f"ai_query: {where}: unknown key {key!r}{near(key, known)}; known are {', '.join(sorted(known))}"
            )


def _ddl_format(text: str) -> Any:
    """``STRUCT<name: STRUCT<...>>``: the outer one names the format, as ``json_schema.name`` does; an answer is the inner one."""
    try:
        outer = type_of(text)
    except ValueError as error:
        raise JobError(f"ai_query: responseFormat is neither JSON nor a type: {error}") from None
    fields = outer.fields
    if len(fields) != 1 or not next(iter(fields.values())).fields:
        raise JobError(
            "ai_query: responseFormat as a type is STRUCT<name: STRUCT<...>>, with one field that is the answer, not "
            f"{short(text)}"
        )
    return next(iter(fields.values())).schema


AI_QUERY = SqlFunction(
    "ai_query",
    (
        Parameter("endpoint", required=True),
        Parameter("request", required=True, literal=False),
        Parameter("returnType"),
        Parameter("failOnError", True),
        Parameter("modelParameters"),
        Parameter("responseFormat"),
    ),
    _call,
    refused={"files": "images and other files are not sent to a model from SQL here: leave it out"},
)

__all__ = ["AI_QUERY", "SchemaText"]
