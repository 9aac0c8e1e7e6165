"""SageMaker's batch transform: a record, which a filter picks from, in; the container's answer, joined and filtered, out.

A record is a text, what text generation containers take (``{"inputs": ..., "parameters": {...}}``), a chat request
(``{"messages": [...]}``), or variables for the job's prompt: an object, or a row of CSV, whose cells are ``c0``, ``c1``, ...
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llmbatch.core.record import encode
from llmbatch.core.sampling import sampling_problem
from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.base import RECORD, Answered, Container, wire_format
from llmbatch.formats.json_path import JsonPath, Misfit
from llmbatch.formats.outcome import Error, Success, outcome_of

OUTPUT, INPUT = "SageMakerOutput", "SageMakerInput"

_SAMPLING = {
    "max_new_tokens": "max_tokens",
    "stop_sequences": "stop",
    **{name: name for name in ("stop", "temperature", "top_p", "top_k", "seed", "repetition_penalty")},
}
_SAID = ("details", "return_full_text", "do_sample")
# what may be there with a value that changes nothing
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "watermark": (False,),
    "best_of": (1,),
    "stream": (False,),
    "decoder_input_details": (False,),
    "typical_p": (1,),
}


class SageMakerSettings(BaseModel):
    """What a transform job says of its records: how they come, what is picked of them, and what is made of the answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: Literal["json", "csv", "text"] = Field("json", description="of text a record need not be JSON")
    split: Literal["line", "none"] = Field("line", description="a record a line, or a record a file")
    input_filter: str = Field("$", description="what of a record the model gets, in JSONPath")
    join: bool = Field(False, description="put the answer beside the record that it is of")
    output_filter: str = Field("$", description="what of the answer, or of both joined, is written")
    accept: Literal["json", "csv"] | None = Field(
        None, description="what is written; by default as content, for text json"
    )
    tgi_compat: bool = Field(False, description="an answer is a list of one, as TGI's container has it")

    @field_validator("input_filter", "output_filter")
    @classmethod
    def _is_filter(cls, text: str) -> str:
        try:
            JsonPath(text)
        except ValueError as error:
            raise ValueError(f"the filter {text!r} {error}") from None
        return text

    @model_validator(mode="after")
    def _fit_together(self) -> SageMakerSettings:
        if self.content == "csv" and self.split != "line":
            raise ValueError("records of CSV are lines: split is line for them")
        if (self.join or self.output_filter != "$") and (self.content == "csv") != (self.written == "csv"):
            raise ValueError(
                "what is joined or filtered is written as it came: accept must be of the same kind as content"
            )
        for text, is_csv in ((self.input_filter, self.content == "csv"), (self.output_filter, self.written == "csv")):
            if is_csv and not JsonPath(text).for_rows:
                raise ValueError(
                    f"the filter {text!r} is for rows of CSV, and can have indices and slices alone, as $[0,2:]"
                )
        return self

    @property
    def written(self) -> str:
        """As what answers are written."""
        return self.accept or ("csv" if self.content == "csv" else "json")


class _RecordError(Exception):
    """What is wrong with a record, in words that follow the row's id."""


class SageMaker:
    """The format; see ``formats/base.py``."""

    Settings = SageMakerSettings
    id_field = None
    keys: frozenset[str] = frozenset()
    takes_prompt = True

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings
        self._input, self._output = JsonPath(settings.input_filter), JsonPath(settings.output_filter)
        self._is_csv = settings.content == "csv"
        self._chat = wire_format("openai")
        self.takes_text = settings.content == "text"
        self.container: Container = "csv_lines" if self._is_csv else "values" if settings.split == "line" else "files"

    def problem(self, line: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure | None:
        try:
            record = self._input.pick(line[RECORD])
        except Misfit as error:
            return Failure(FailureKind.PROMPT, f"the input filter {error}")
        if self._is_csv:
            return None
        if isinstance(record, str):
            return _completion(record)
        if not isinstance(record, dict):
            said = f"the record is of type {type_name(record)}, and what a model is asked is a text or an object"
            return Failure(FailureKind.PROMPT, said)
        if "messages" in record:
            return self._chat.read({"custom_id": "", "body": record}, adapters)
        if "inputs" not in record:
            return None
        try:
            return _inputs(record)
        except _RecordError as error:
            return Failure(FailureKind.PROMPT, str(error))

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            record = self._input.pick(line[RECORD])
        except (Misfit, KeyError):
            return {}
        if not self._is_csv:
            return record if isinstance(record, dict) else {}
        return {f"c{number}": cell for number, cell in enumerate(record if isinstance(record, list) else [record])}

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """The record of a job without an input filter."""
        prompt = rendered.prompt
        if prompt.messages is not None or rendered.output:
            body: dict[str, Any] = self._chat.write(row_id, rendered, model)["body"]
            return body
        ours = {our: their for their, our in _SAMPLING.items()}
        return {
            "inputs": f"{prompt.text}{prompt.prefill}",
            "parameters": {ours.get(name, name): value for name, value in rendered.sampling.items()},
        }

    def result(self, answered: Answered) -> dict[str, Any]:
        """As a service's output has no line for a record without an answer, that is an object with its ``error``."""
        outcome = outcome_of(answered.record, answered.asked)
        if isinstance(outcome, Error):
            return {"error": {"code": outcome.code.http, "message": outcome.message}}
        value = self._joined(answered, self._answer(answered, outcome))
        return value if isinstance(value, dict) else {OUTPUT: value}

    def written(self, answered: Answered, success: Success) -> str:
        """The transformed record of a row with an answer. Raises ``Misfit`` where the output filter picks nothing."""
        return self._text(self._joined(answered, self._answer(answered, success)))

    def placeholder(self, answered: Answered, text: str) -> str:
        """The same with a text for an answer, for a row without one: as a container answers that never fails."""
        if not (self._settings.join and answered.row):
            return text
        try:
            return self._text(self._joined(answered, text))
        except Misfit:
            return text

    def _answer(self, answered: Answered, success: Success) -> Any:
        """What a container answers."""
        text = success.text
        if self._settings.written == "csv":
            return text
        record = self._input.pick(answered.row[RECORD])
        if isinstance(record, dict) and "messages" in record:
            told = {**answered.record, "status": "ok", "output": success.output, "finish_reason": success.finish_reason}
            return self._chat.result(replace(answered, record=told))["response"]["body"]
        answer: dict[str, Any] = {"generated_text": text}
        if isinstance(record, dict) and "inputs" in record:
            given = record.get("parameters") or {}
            if given.get("return_full_text"):
                answer["generated_text"] = f"{record['inputs']}{text}"
            if given.get("details"):
                reason = "length" if success.finish_reason == "length" else "eos_token"
                tokens = answered.record["usage"]["completion_tokens"]
                answer["details"] = {"finish_reason": reason, "generated_tokens": tokens}
        return [answer] if self._settings.tgi_compat else answer

    def _joined(self, answered: Answered, answer: Any) -> Any:
        """What is left of the answer, or of record and answer. Of CSV it is a row, or one cell."""
        is_csv = self._settings.written == "csv"
        if not self._settings.join:
            return self._output.pick([answer] if is_csv else answer)
        record = answered.row[RECORD]
        if is_csv:
            return self._output.pick([*record, answer])
        if isinstance(record, dict):
            return self._output.pick({**record, OUTPUT: answer})
        return self._output.pick({INPUT: record, OUTPUT: answer})

    def _text(self, value: Any) -> str:
        if self._settings.written != "csv":
            return encode(value)
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return line.getvalue()


def _completion(text: str, sampling: Mapping[str, Any] | None = None) -> Rendered | Failure:
    if not text or text.isspace():
        return Failure(FailureKind.EMPTY_PROMPT, "the record's text is blank")
    if not is_encodable(text):
        return Failure(FailureKind.PROMPT, "the record's text holds half a surrogate pair, which is no character")
    return Rendered(Prompt(text=text), sampling) if sampling else Rendered(Prompt(text=text))


def _inputs(record: Mapping[str, Any]) -> Rendered | Failure:
    text, given = record["inputs"], record.get("parameters")
    if not isinstance(text, str):
        raise _RecordError(
            f"inputs must be one text, and is of type {type_name(text)}: give each text a record of its own"
        )
    for key, value in record.items():
        if key not in ("inputs", "parameters") and value is not None and value not in _NEUTRAL.get(key, ()):
            raise _RecordError(f"{key} is not supported{near(key, ('inputs', 'parameters'))}")
    if given is None:
        return _completion(text)
    if not isinstance(given, Mapping):
        raise _RecordError(f"parameters must be an object, and is of type {type_name(given)}")
    return _completion(text, _sampling(given))


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    for key, value in given.items():
        if value is None or (key in _NEUTRAL and value in _NEUTRAL[key]):
            continue
        if key in _SAID:
            if not isinstance(value, bool):
                raise _RecordError(f"parameters.{key} is true or false, and is {short(value)}")
        elif key not in _SAMPLING:
            raise _RecordError(f"parameters.{key} is not supported{near(key, (*_SAMPLING, *_SAID))}")
        elif value != []:  # no stop sequences
            if problem := sampling_problem(_SAMPLING[key], value):
                raise _RecordError(f"parameters.{key} {problem}")
            sampling[_SAMPLING[key]] = value
    if given.get("do_sample") is False:
        sampling["temperature"] = 0
    return sampling
