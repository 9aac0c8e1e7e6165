"""The task functions, each of one prompt that comes with llmbatch: the values of their arguments in, the call out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import FailureKind
from llmbatch.core.words import short
from llmbatch.integrations.spark.base import Call, Endpoints, Parameter, SqlFunction, job_for, plain_number

_LABELS = (2, 20)
_WORDS = 50
# the codes that Databricks documents; any other language is named to the model as it is given
_LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "it": "Italian", "pt": "Portuguese", "hi": "Hindi", "es": "Spanish",
    "th": "Thai",
}  # fmt: skip
_CONTENT = Parameter("content", required=True, literal=False)


def _labels(name: str, given: Any, least: int, most: int | None) -> list[str]:
    labels = plain_number(given)
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise JobError(f"{name}: labels is an array of texts, as array('a', 'b'), not {short(labels)}")
    if len(labels) < least or (most is not None and len(labels) > most):
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        raise JobError(f"{name}: labels has {len(labels)} texts, and {bounds} are allowed")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise JobError(f"{name}: labels has {', '.join(map(repr, twice))} more than once")
    return labels


def _classify(endpoints: Endpoints, given: Mapping[str, Any]) -> Call:
    labels = _labels("ai_classify", given["labels"], *_LABELS)
    job = job_for(endpoints.job(), prompt={"path": "classify", "variables": {"labels": labels}})
    return Call(job, null=(str(FailureKind.CHOICE), str(FailureKind.TRUNCATED)))


def _extract(endpoints: Endpoints, given: Mapping[str, Any]) -> Call:
    labels = _labels("ai_extract", given["labels"], 1, None)
    fields = {label: {"type": ["string", "null"]} for label in labels}
    schema = {"type": "object", "properties": fields, "required": labels, "additionalProperties": False}
    job = job_for(endpoints.job(), prompt={"path": "extract", "variables": {"schema": schema}})
    quoted = ("`" + label.replace("`", "``") + "`: STRING" for label in labels)
    return Call(job, f"STRUCT<{', '.join(quoted)}>", as_it_came=not endpoints.strict)


def _summarize(endpoints: Endpoints, given: Mapping[str, Any]) -> Call:
    words = plain_number(given["max_words"])
    if isinstance(words, bool) or not isinstance(words, int) or words < 0:
        raise JobError(f"ai_summarize: max_words is a whole number, 0 for any length, not {short(words)}")
    # the prompt has no other way to say that any length will do
    variables = {"max_words": words} if words else {"max_words": 100_000}
    return _of_prompt(endpoints, "summarize", variables)


def _translate(endpoints: Endpoints, given: Mapping[str, Any]) -> Call:
    language = given["to_lang"]
    if not isinstance(language, str) or not language.strip():
        raise JobError(f"ai_translate: to_lang is a language, such as 'de', not {short(language)}")
    return _of_prompt(endpoints, "translate", {"target_language": _LANGUAGES.get(language.lower(), language)})


def _gen(endpoints: Endpoints, _given: Mapping[str, Any]) -> Call:
    profile = endpoints.job()
    return Call(job_for(profile), as_it_came=not endpoints.strict and not profile.get("answer"))


def _of_prompt(endpoints: Endpoints, prompt: str, variables: Mapping[str, Any]) -> Call:
    job = job_for(endpoints.job(), prompt={"path": prompt, "variables": variables})
    return Call(job, as_it_came=not endpoints.strict)


_LITERAL_LABELS = Parameter("labels", required=True)
AI_CLASSIFY = SqlFunction("ai_classify", (_CONTENT, _LITERAL_LABELS), _classify)
AI_EXTRACT = SqlFunction("ai_extract", (_CONTENT, _LITERAL_LABELS), _extract)
AI_SUMMARIZE = SqlFunction("ai_summarize", (_CONTENT, Parameter("max_words", _WORDS)), _summarize)
AI_TRANSLATE = SqlFunction("ai_translate", (_CONTENT, Parameter("to_lang", required=True)), _translate)
AI_GEN = SqlFunction("ai_gen", (Parameter("prompt", required=True, literal=False),), _gen)

__all__ = ["AI_CLASSIFY", "AI_EXTRACT", "AI_GEN", "AI_SUMMARIZE", "AI_TRANSLATE"]
