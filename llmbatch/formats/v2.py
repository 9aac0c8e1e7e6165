"""Lines of V2 inference requests, as ``mlserver infer`` takes them, both ways: what one asks for, and the line that answers it.

Several values of the prompt's input are several prompts of one row, answered in one line with the same shape. Parameters, and an
input ``sampling_parameters`` (JSON text), are the row's sampling.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.digest import uuid_of
from llmbatch.core.quick_json import Form, hole, text_json, value_json
from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases
from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.base import Answered, Container
from llmbatch.formats.kserve import (
    FINISH_REASON,
    TEXT_OUTPUT,
    TOKENS_IN,
    TOKENS_OUT,
    Answer,
    Asked,
    WireError,
    read_request,
    text_output,
    written_answers,
)
from llmbatch.formats.outcome import Error, Success, outcome_of, plain_text

_TOLD = {f"return_{name}": name for name in (FINISH_REASON, TOKENS_IN, TOKENS_OUT)}
"""An input that asks for an output, and that output's name."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "exclude_input_in_output": (True,),
    "return_logprobs": (False,),
    "return_cumulative_logprob": (False,),
    "embedding_request": (False, ""),
    "n": (1,),
}
"""What may be there with a value that changes nothing."""
_IGNORED = frozenset({"content_type", "headers", "batch_index", "inference_id", "binary_data_output"})
_AS_JSON = frozenset({"stop_token_ids", "logit_bias", "allowed_token_ids", "bad_words"})
"""Settings that are lists or objects, which parameters hold as JSON text."""
_GUIDED = {"json": "schema", "choice": "choice", "regex": "regex", "grammar": "grammar"}
_SETTINGS, _GUIDE, _ADAPTER = "sampling_parameters", "guided_decoding", "lora_name"


class V2Settings(BaseModel):
    """Of this format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chat: bool = Field(
        False, description="a prompt is a message of the user's, for the model's chat template, and no plain text"
    )


class V2:
    """The format; see ``formats/base.py``."""

    Settings = V2Settings
    container: Container = "lines"
    id_field = "id"
    keys: frozenset[str] = frozenset()  # a list of inputs alone tells nothing
    takes_text = takes_prompt = False

    def __init__(self, settings: V2Settings) -> None:
        self._chat = settings.chat

    def problem(self, line: Mapping[str, Any]) -> str | None:
        if isinstance(line.get("inputs"), list):
            return None
        return 'a request has the form {"inputs": [{"name", "shape", "datatype", "data"}, ...]}, and this has no list of inputs'

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        try:
            asked = read_request(line)
            sampling, output, lora = _settings(asked.values, adapters)
            _outputs(line.get("outputs"))
            first, *more = map(self._prompt, asked.prompts)
            if more and any(asked.values.get(name) for name in _TOLD):
                raise WireError(f"{', '.join(_TOLD)} are for one prompt a line: give each a line of its own")
        except WireError as error:
            return Failure(FailureKind.PROMPT, str(error))
        if any(not text or text.isspace() for text in asked.prompts):
            return Failure(FailureKind.EMPTY_PROMPT, "the request's prompt is blank")
        return Rendered(first, sampling, output, lora, more=tuple(more))

    def _prompt(self, text: str) -> Prompt:
        if not is_encodable(text):
            raise WireError("the prompt holds half a surrogate pair, which is no character")
        return Prompt(messages=({"role": "user", "content": text},)) if self._chat else Prompt(text=text)

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:  # noqa: ARG002 - its URL names it
        """Of a chat the last message's text is written, which ``chat`` reads again."""
        prompts = (rendered.prompt, *rendered.more)
        texts = [str(p.messages[-1]["content"]) if p.messages else f"{p.text}{p.prefill}" for p in prompts]
        held = {name: ours for name, ours in _GUIDED.items() if ours in (rendered.output or {})}
        given = dict(rendered.sampling) | ({} if rendered.lora is None else {_ADAPTER: rendered.lora})
        if rendered.output:
            ((name, ours),) = held.items()
            given[_GUIDE] = {name: rendered.output[ours]}
        inputs = [{"name": "text_input", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}]
        if given:
            said = json.dumps(given, ensure_ascii=False)
            inputs.append({"name": _SETTINGS, "shape": [1, 1], "datatype": "BYTES", "data": [said]})
        return {"id": str(row_id), "inputs": inputs}

    def result(self, answered: Answered) -> dict[str, Any]:
        return line_of(answered, strict=False)


def line_of(answered: Answered, *, strict: bool, ids: bool = False) -> dict[str, Any]:
    """The line that answers a row. ``ids``: of one that has no answer too, where it has an id."""
    row, place = answered.row, {"batch_index": answered.line}
    body = reply_of(answered, strict=strict)
    if isinstance(body, Error):
        named = {"id": row["id"]} if ids and isinstance(row.get("id"), str) else {}
        return {**named, "parameters": place, "error": {"status": "preprocessing error", "msg": body.message}}
    given = body.get("id") or _made_id(answered.created, answered.record["index"])
    return _line(answered.model, given, answered.line, body["outputs"])


def _line(model: str, given: str, number: Any, outputs: Sequence[Any]) -> dict[str, Any]:
    parameters = {"batch_index": number, "inference_id": given}
    return {"model_name": model, "id": given, "parameters": parameters, "outputs": outputs}


def _made_id(created: int, index: int) -> str:
    return uuid_of(f"{created}/{index}")


class PlainLines:
    """The lines of rows that asked for one text, and got that and nothing more, as bytes: as ``line_of`` and ``json_line`` make
    them.
    """

    def __init__(self, model: str, created: int) -> None:
        self._created = created
        outputs = [text_output(hole("shape"), [hole("text")])]
        self._form = Form(_line(hole("model"), hole("id"), hole("number"), outputs), known={"model": text_json(model)})

    def line(self, record: Mapping[str, Any], row: Mapping[str, Any], number: int) -> bytes | None:
        """The line of a row's record, or ``None`` where it is another kind of row. ``number`` is as ``Answered.line``."""
        text, inputs = plain_text(record), row.get("inputs")
        # the row was answered: what it has of these is as the protocol says
        if text is None or row.get("parameters") or inputs.__class__ is not list or len(inputs) != 1:
            return None
        data = inputs[0]["data"]
        if data.__class__ is not list or len(data) != 1 or data[0].__class__ is not str:
            return None
        named = row.get("id")
        given = named if named and isinstance(named, str) else _made_id(self._created, record["index"])
        texts: dict[str, str | int] = {
            "id": text_json(given),
            "number": number,
            "shape": value_json(inputs[0]["shape"]),
            "text": text_json(text),
        }
        return self._form.line(texts)


def reply_of(answered: Answered, *, strict: bool) -> dict[str, Any] | Error:
    """The body that answers a request, or why it has no answer."""
    outcome = outcome_of(answered.record, answered.asked, strict=strict)
    if isinstance(outcome, Error):
        return outcome
    asked = read_request(answered.row)
    return written_answers(answered.model, asked, _answers(answered, asked, outcome))


def _answers(answered: Answered, asked: Asked, success: Success) -> list[Answer]:
    if len(asked.prompts) > 1:
        return [Answer(_text(each)) for each in success.output]
    wanted, usage = {name for key, name in _TOLD.items() if asked.values.get(key)}, answered.record["usage"]
    told = {
        FINISH_REASON: success.finish_reason,
        TOKENS_IN: usage["prompt_tokens"],
        TOKENS_OUT: usage["completion_tokens"],
    }
    return [Answer(_text(success.output), *(told[name] if name in wanted else None for name in told))]


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a request. Raises ``WireError``."""
    given = {name: value for name, value in values.items() if name != _SETTINGS}
    if (text := values.get(_SETTINGS)) is not None:
        try:
            more = json.loads(text) if isinstance(text, str) else text
        except ValueError as error:
            raise WireError(f"{_SETTINGS} is JSON text, and this is none: {error}") from None
        if not isinstance(more, dict):
            raise WireError(f"{_SETTINGS} is the JSON text of an object, and this is of type {type_name(more)}")
        given |= more
    return given


def _settings(
    values: Mapping[str, Any], adapters: Collection[str]
) -> tuple[dict[str, Any], Mapping[str, Any] | None, str | None]:
    """(sampling, what the answer is held to, adapter) that a request's values ask for. Raises ``WireError``."""
    sampling: dict[str, Any] = {}
    output: Mapping[str, Any] | None = None
    lora: str | None = None
    for name, value in _given(values).items():
        if value is None or name in _IGNORED or name in _TOLD:
            continue
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise WireError(f"{name} = {short(value)} is not supported")
        elif name == _GUIDE:
            output = _held(value)
        elif name == _ADAPTER:
            if not isinstance(value, str) or value not in adapters:
                raise WireError(f"there is no adapter {short(value)}: engine.lora has {', '.join(adapters) or 'none'}")
            lora = value
        elif name in SAMPLING and name != "logprobs":
            sampling[name] = _setting(name, value)
        else:
            known = {*SAMPLING, *_TOLD, *_NEUTRAL, _SETTINGS, _GUIDE, _ADAPTER}
            raise WireError(f"{name} is not supported{near(name, known)}")
    return sampling, output, lora


def _setting(name: str, value: Any) -> Any:
    if name in _AS_JSON and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise WireError(f"{name} is JSON text, and this is none: {error}") from None
    if problem := sampling_problem(name, value):
        raise WireError(f"{name} {problem}")
    return token_biases(value) if name == "logit_bias" else value


def _held(value: Any) -> Mapping[str, Any]:
    """What vLLM's backend is told in ``guided_decoding``, by our names."""
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        given = None
    known = {name: setting for name, setting in given.items() if setting is not None} if isinstance(given, dict) else {}
    if len(known) != 1 or not known.keys() <= _GUIDED.keys():
        raise WireError(f"{_GUIDE} has one of {', '.join(_GUIDED)}, and is {short(value)}")
    ((name, setting),) = known.items()
    wanted = {"json": dict, "choice": list}.get(name, str)
    if not isinstance(setting, wanted) or not setting:
        raise WireError(f"{_GUIDE}.{name} is of type {type_name(setting)} ({short(setting)})")
    return {_GUIDED[name]: setting}


def _outputs(asked: Any) -> None:
    """See that no output is asked for that there is not. Raises ``WireError``."""
    if asked is not None and not isinstance(asked, list):
        raise WireError(f"outputs are a list, and these are of type {type_name(asked)}")
    for each in asked or ():
        name = each.get("name") if isinstance(each, Mapping) else each
        if name not in (TEXT_OUTPUT, *_TOLD.values()):
            raise WireError(
                f"there is no output {short(name)}; there is {TEXT_OUTPUT}, and what is asked for by {', '.join(_TOLD)}"
            )


__all__ = ["V2", "PlainLines", "line_of", "reply_of"]
