"""Instances of a Vertex AI BatchPredictionJob for a custom model, both ways: JSON values, rows of CSV or files in, and lines of
predictions and of errors out.

What an instance asks for is ours to say, as it is the model's own matter there: a text; ``prompt``, ``inputs`` or ``messages``,
with ``parameters`` beside them; a whole chat request of OpenAI's under ``"@requestFormat": "chatCompletions"``; and anything else
is variables for the job's prompt.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.sampling import SAMPLING, sampling_problem
from llmbatch.core.types import EMPTY, Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import short, type_name
from llmbatch.formats.base import RECORD, Answered, Container, wire_format
from llmbatch.formats.outcome import Error, outcome_of
from llmbatch.formats.samples import samples_of

_PROMPTS = ("messages", "prompt", "inputs")
_REQUEST_FORMAT = "@requestFormat"
_ASKING = frozenset({*_PROMPTS, _REQUEST_FORMAT})
# Names that say the same elsewhere: of Hugging Face's text generation, and of Google's own models.
_ALSO = {
    "max_new_tokens": "max_tokens",
    "maxOutputTokens": "max_tokens",
    "stop_sequences": "stop",
    "stopSequences": "stop",
    "topP": "top_p",
    "topK": "top_k",
    "candidateCount": "n",
}
# What vLLM's container takes beside the prompt. Other names may be columns of a table: they belong into ``parameters``.
_BESIDE = frozenset(
    {"max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
     "repetition_penalty", "response_format", "guided_json", "guided_choice", "guided_regex", "guided_grammar",
     "structured_outputs"}
)  # fmt: skip

_MORE = (_ASKING | _BESIDE | {"parameters"}) - {"prompt"}  # an instance without these is a prompt alone
_BODY = re.compile(r"\bbody\b(?=[. ])")  # what OpenAI's format calls an instance in its messages


class VertexSettings(BaseModel):
    """As a job's ``inputConfig`` and ``instanceConfig`` have it, and what holds for all of its instances."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instances: Literal["jsonl", "csv", "file-list"] = Field("jsonl", description="how they lie in files")
    instance_type: Literal["object", "array"] | None = Field(
        None, description="what the model is given; by default JSON as it is, and of CSV an array"
    )
    key_field: str | None = Field(
        None, description="names the instance, which does not have it then; the output has only its value"
    )
    included_fields: tuple[str, ...] = Field((), description="all that the model sees; their order is that of an array")
    excluded_fields: tuple[str, ...] = Field((), description="what the model does not see")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="sampling of instances that do not say it themselves"
    )

    @model_validator(mode="after")
    def _go_together(self) -> VertexSettings:
        if self.included_fields and self.excluded_fields:
            raise ValueError("included_fields and excluded_fields cannot be given together")
        if self.instances == "file-list" and (self.key_field or self.included_fields or self.excluded_fields):
            raise ValueError(
                "the files of a file-list have no fields: leave key_field, included_fields and excluded_fields out"
            )
        if self.instances == "jsonl" and self.instance_type == "array" and not self.included_fields:
            raise ValueError("instance_type array needs included_fields, which give its order")
        for name, value in self.sampling.items():
            if problem := sampling_problem(name, value):
                raise ValueError(f"parameters.{name} {problem}")
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters by our names. In what Google's clients send every number has a point."""
        named = {_ALSO.get(name, name): value for name, value in self.parameters.items()}
        return {name: _whole(value) if SAMPLING.get(name) == ("integer",) else value for name, value in named.items()}

    @property
    def gives_arrays(self) -> bool:
        """Whether the model is given the values of fields without their names."""
        return (self.instance_type or ("array" if self.instances == "csv" else "object")) == "array"


class _InstanceProblem(Exception):
    """What is wrong with an instance, in words that follow the row's id."""


class Vertex:
    """The format; see ``formats/base.py``. It is told from others by the job's document alone."""

    Settings = VertexSettings
    keys: frozenset[str] = frozenset()
    takes_text = False
    takes_prompt = True

    def __init__(self, settings: VertexSettings) -> None:
        self._settings = settings
        self._chat = wire_format("openai")
        self._dropped = {*settings.excluded_fields, *((settings.key_field,) if settings.key_field else ())}
        containers: Mapping[str, Container] = {"jsonl": "values", "csv": "csv", "file-list": "texts"}
        self.container: Container = containers[settings.instances]
        self.id_field = settings.key_field
        self.sampling: Mapping[str, Any] = settings.sampling

    def problem(self, line: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - its line of the output shows whatever is in it
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure | None:
        try:
            instance = self._seen(line[RECORD])
            if isinstance(instance, list) and len(instance) == 1 and isinstance(instance[0], str):
                instance = instance[0]
            if isinstance(instance, str):
                if not instance or instance.isspace():
                    return Failure(FailureKind.EMPTY_PROMPT, "the instance is blank")
                return Rendered(Prompt(text=instance))
            if not isinstance(instance, Mapping) or not instance.keys() & _ASKING:
                return None
            if instance.keys().isdisjoint(_MORE) and isinstance(text := instance["prompt"], str) and text.strip():
                return Rendered(Prompt(text=text))
            rendered = self._chat.read({"custom_id": "", "body": _body(instance)}, adapters)
        except _InstanceProblem as error:
            return Failure(FailureKind.PROMPT, str(error))
        if isinstance(rendered, Failure):
            return replace(rendered, message=_BODY.sub("instance", rendered.message))
        return rendered

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """An instance that is no object is the variable ``instance``."""
        seen = self._seen(line[RECORD])
        return seen if isinstance(seen, Mapping) else {"instance": seen}

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """A chat request of OpenAI's, or a text with its parameters."""
        body = self._chat.write(row_id, rendered, model)["body"]
        if "messages" in body:
            instance = {_REQUEST_FORMAT: "chatCompletions", **body}
        else:
            instance = {"prompt": body.pop("prompt"), **({"parameters": body} if body else {})}
        return {RECORD: {(self._settings.key_field or "id"): row_id, **instance}}

    def result(self, answered: Answered) -> dict[str, Any]:
        return self.line(answered)

    def line(self, answered: Answered, *, strict: bool = False, rich: bool = False) -> dict[str, Any]:
        """A line of predictions, or one of errors where it has an ``error``.

        ``rich``: a prediction says how it ended, and what it took.
        """
        outcome = outcome_of(answered.record, answered.asked, strict=strict)
        line = self._named(answered)
        if isinstance(outcome, Error):
            line["error"] = {"code": outcome.code.rpc, "message": outcome.message}
        elif rich:
            line["prediction"] = _rich(answered, outcome.output, outcome.finish_reason)
        else:
            line["prediction"] = outcome.output
        return line

    def _named(self, answered: Answered) -> dict[str, Any]:
        """The key, or the instance: as the model was given it, with what it was not shown attached."""
        record, settings = answered.row.get(RECORD), self._settings
        if settings.key_field is not None:
            return {"key": record.get(settings.key_field) if isinstance(record, Mapping) else None}
        if not isinstance(record, Mapping):
            return {"instance": record}
        if settings.gives_arrays:
            return {"instance": [record.get(name) for name in self._fields(record)]}
        return {"instance": {name: record.get(name) for name in settings.included_fields} or record}

    def _fields(self, record: Mapping[str, Any]) -> Collection[str]:
        return self._settings.included_fields or [name for name in record if name not in self._dropped]

    def _seen(self, record: Any) -> Any:
        """What of a record the model sees; of what is an array to it, with the names. Raises ``_InstanceProblem``."""
        settings = self._settings
        if not isinstance(record, Mapping):
            if self._dropped or settings.included_fields or settings.instance_type == "object":
                raise _InstanceProblem(
                    f"the instance must be an object, and is of type {type_name(record)} ({short(record)})"
                )
            return record
        if not self._dropped and not settings.included_fields:
            return record
        if settings.gives_arrays and (missing := [name for name in settings.included_fields if name not in record]):
            raise _InstanceProblem(f"the instance has no field {short(missing[0])}, which includedFields names")
        return {name: record[name] for name in self._fields(record) if name in record and name not in self._dropped}


def _body(instance: Mapping[str, Any]) -> dict[str, Any]:
    """What an instance asks for, as the body of a request of OpenAI's. Raises ``_InstanceProblem``."""
    if (form := instance.get(_REQUEST_FORMAT)) is not None:
        if form != "chatCompletions":
            raise _InstanceProblem(f"{_REQUEST_FORMAT} is {short(form)}; known is chatCompletions")
        return {name: value for name, value in instance.items() if name != _REQUEST_FORMAT}
    given = [name for name in _PROMPTS if instance.get(name) is not None]
    if len(given) != 1:
        seen = " and ".join(given) or "none that is not null"
        raise _InstanceProblem(f"the instance must have one of {', '.join(_PROMPTS)}, and has {seen}")
    prompt = instance[given[0]]
    chat = given[0] == "messages" or (given[0] == "inputs" and isinstance(prompt, list))
    body = {
        "messages" if chat else "prompt": prompt,
        **{name: value for name, value in instance.items() if name in _BESIDE},
    }
    parameters = instance.get("parameters") or EMPTY
    if not isinstance(parameters, Mapping):
        raise _InstanceProblem(f"the instance's parameters must be an object, and are of type {type_name(parameters)}")
    return body | _parameters(parameters)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by OpenAI's names. ``do_sample`` and ``return_full_text`` are Hugging Face's."""
    named = {_ALSO.get(name, name): value for name, value in given.items()}
    if named.pop("do_sample", None) is False:
        named["temperature"] = 0
    if named.get("return_full_text") is False:
        del named["return_full_text"]
    return named


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _rich(answered: Answered, output: Any, finish_reason: str | None) -> dict[str, Any]:
    usage, texts = answered.record["usage"], [sample.text for sample in samples_of(answered, output)]
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    return {
        "text": texts[0] if len(texts) == 1 else texts,
        "finish_reason": finish_reason,
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }
