"""Lines of ``seldon-batch-processor`` (Seldon's V1 protocol), both ways: what one asks for, and the message that answers it.

What a line is, is its data type: ``data`` a list of lists of texts, ``str`` a text, ``json`` any JSON, ``raw`` a whole message.
Several texts are several prompts of one row, and the answer has the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.digest import uuid_of
from llmbatch.core.quick_json import Form, hole, text_json
from llmbatch.core.sampling import SAMPLING, sampling_problem
from llmbatch.core.types import EMPTY, Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.base import RECORD, Answered, Container
from llmbatch.formats.openai.body import text_of_output
from llmbatch.formats.outcome import Success, outcome_of, plain_text

DataType = Literal["data", "json", "str", "raw"]
_PROMPTS = (
    "text_input",
    "prompt",
    "inputs",
    "args",
    "text",
)  # of a JSON object the key with the prompt, the likeliest first
_CONTENTS = dict.fromkeys(("data", "strData", "jsonData")).keys()
_NAME = "text_output"


class SeldonSettings(BaseModel):
    """Of this format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_type: DataType = Field("data", description="what a line is, as --data-type of seldon-batch-processor says it")
    chat: bool = Field(
        False, description="a prompt is a message of the user's, for the model's chat template, and no plain text"
    )


class _Unreadable(ValueError):
    """A record is not what its data type says, in words."""


class Seldon:
    """The format; see ``formats/base.py``."""

    Settings = SeldonSettings
    container: Container = "values"
    id_field = None
    keys: frozenset[str] = frozenset()
    takes_text = takes_prompt = False

    def __init__(self, settings: SeldonSettings) -> None:
        self._settings = settings

    def problem(self, line: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - a record may be anything
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:  # noqa: ARG002 - none is named
        try:
            message = message_of(line[RECORD], self._settings.data_type)
            texts, sampling = list(_texts(message)), _sampling(message)
        except _Unreadable as error:
            return Failure(FailureKind.PROMPT, str(error))
        if not texts or any(not text or text.isspace() for text in texts):
            return Failure(FailureKind.EMPTY_PROMPT, "the record's prompt is blank")
        if not all(map(is_encodable, texts)):
            return Failure(FailureKind.PROMPT, "the prompt holds half a surrogate pair, which is no character")
        first, *more = [
            Prompt(messages=({"role": "user", "content": text},)) if self._settings.chat else Prompt(text=text)
            for text in texts
        ]
        return Rendered(first, sampling, more=tuple(more))

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:  # noqa: ARG002 - it has no place
        """A whole message; its sampling has no place in it but as JSON."""
        prompts = (rendered.prompt, *rendered.more)
        texts = [str(p.messages[-1]["content"]) if p.messages else f"{p.text}{p.prefill}" for p in prompts]
        if rendered.sampling and len(texts) == 1:
            return {RECORD: {"jsonData": {"prompt": texts[0], **rendered.sampling}}}
        return {RECORD: {"data": {"names": ["prompt"], "ndarray": [[text] for text in texts]}}}

    def result(self, answered: Answered) -> dict[str, Any]:
        return line_of(answered, self._settings.data_type, "", strict=False)


def line_of(answered: Answered, data_type: DataType | None, batch: str, *, strict: bool) -> dict[str, Any]:
    """The message that answers a row of a batch of this name. Without a data type it is told from the record."""
    tags = _tags(batch, answered.record["index"], answered.line)
    outcome = outcome_of(answered.record, answered.asked, strict=strict)
    if not isinstance(outcome, Success):
        return {"status": {"info": "FAILURE", "reason": outcome.message, "status": 1}, "meta": tags}
    record = answered.row[RECORD]
    message = message_of(record, data_type or _told(record))
    return reply_of(message, answered, outcome, tags)


def _tags(batch: str, index: int, line: int) -> dict[str, Any]:
    return {"batch_id": batch, "batch_instance_id": uuid_of(f"{batch}/{index}"), "batch_index": line}


class PlainLines:
    """The lines of rows that asked for one text in an ``ndarray``, ``[["text"]]``, and got that and nothing more, as bytes: as
    ``line_of`` and ``write``, which writes values as JSON, make them.
    """

    def __init__(self, data_type: DataType | None, batch: str, write: Callable[[Any], str]) -> None:
        self._raw = data_type in (None, "raw")
        self._batch = batch
        self._write = write
        self._form = Form(_message(hole("tags"), {"data": _data([[hole("text")]])}), write)

    def line(self, record: Mapping[str, Any], row: Mapping[str, Any], number: int) -> bytes | None:
        """The line of a row's record, or ``None`` where it is another kind of row. ``number`` is as ``Answered.line``."""
        text, message = plain_text(record), row.get(RECORD)
        if text is None or not self._raw or message.__class__ is not dict or message.keys() & _CONTENTS != {"data"}:
            return None
        if not _has_one_text(message["data"]):
            return None
        tags = {**_own_tags(message), **_tags(self._batch, record["index"], number)}
        return self._form.line({"tags": self._write(tags), "text": text_json(text)})


def _has_one_text(data: Any) -> bool:
    ndarray = data.get("ndarray") if isinstance(data, dict) else None
    row = ndarray[0] if isinstance(ndarray, list) and len(ndarray) == 1 else None
    return isinstance(row, list) and len(row) == 1 and row[0].__class__ is str


def reply_of(
    message: Mapping[str, Any], answered: Answered, success: Success, tags: Mapping[str, Any] = EMPTY
) -> dict[str, Any]:
    """The message that answers one. It has the tags of that, and ``tags`` besides."""
    own = _own_tags(message)
    output = success.output
    texts = iter(map(text_of_output, output if isinstance(output, list) and answered.asked.samples > 1 else [output]))
    if "strData" in message:
        answer: dict[str, Any] = {"strData": next(texts)}
    elif "jsonData" in message:
        answer = {"jsonData": output}
    else:
        answer = {"data": _data(_filled(message["data"]["ndarray"], texts))}
    return _message({**own, **tags}, answer)


def _own_tags(message: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = message.get("meta")
    given = meta.get("tags") if isinstance(meta, dict) else None
    return given if isinstance(given, dict) else EMPTY


def _data(ndarray: Any) -> dict[str, Any]:
    return {"names": [_NAME], "ndarray": ndarray}


def _message(tags: Any, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"meta": {"tags": tags}, **answer}


def message_of(record: Any, data_type: DataType) -> Mapping[str, Any]:
    """A record as the message that is sent for it. Raises ``_Unreadable``."""
    if data_type == "str":
        if not isinstance(record, str):
            raise _Unreadable(
                f"a record of the data type str is a JSON string, and this is of type {type_name(record)}"
            )
        return {"strData": record}
    if data_type == "json":
        return {"jsonData": record}
    if data_type == "data":
        if not isinstance(record, list):
            raise _Unreadable(
                f"a record of the data type data is a list of lists, and this is of type {type_name(record)}"
            )
        return {"data": {"ndarray": record}}
    if not isinstance(record, dict):
        raise _Unreadable(
            f"a record of the data type raw is a message, an object, and this is of type {type_name(record)}"
        )
    found = [key for key in _CONTENTS if key in record]
    if len(found) != 1:
        raise _Unreadable(f"a message has one of {', '.join(_CONTENTS)}, and this has {', '.join(record) or 'nothing'}")
    if found[0] == "data" and not (
        isinstance(record["data"], dict) and isinstance(record["data"].get("ndarray"), list)
    ):
        raise _Unreadable("the data of a message is an ndarray here, as tensors hold numbers and a prompt is text")
    return record


def _told(record: Any) -> DataType:
    if isinstance(record, list):
        return "data"
    if isinstance(record, str):
        return "str"
    return "raw" if isinstance(record, dict) and not _CONTENTS.isdisjoint(record) else "json"


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    """Every text that a message asks about, in order. Raises ``_Unreadable``."""
    if "data" in message:
        yield from _leaves(message["data"]["ndarray"])
        return
    content = message["strData"] if "strData" in message else message["jsonData"]
    if isinstance(content, Mapping):
        key = next((key for key in _PROMPTS if isinstance(content.get(key), str)), None)
        if key is None:
            raise _Unreadable(f"no key of the JSON object holds the prompt: {' or '.join(_PROMPTS)}, a text")
        content = content[key]
    if not isinstance(content, str):
        raise _Unreadable(f"the prompt is to be a text, and is of type {type_name(content)}")
    yield content


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield value
    else:
        raise _Unreadable(f"a prompt is text, and the data holds {short(value)} of type {type_name(value)}")


def _sampling(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a JSON object says besides its prompt."""
    content = message.get("jsonData")
    sampling: dict[str, Any] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if name in _PROMPTS or value is None:
            continue
        problem = f"is not supported{near(name, SAMPLING)}" if name not in SAMPLING else sampling_problem(name, value)
        if name == "n" and value != 1:
            problem = "is not supported: a record has one answer for each prompt"
        if problem:
            raise _Unreadable(f"jsonData.{name} {problem}")
        sampling[name] = value
    return sampling


def _filled(form: Any, texts: Iterator[str]) -> Any:
    """The same lists in lists, with answers in place of the prompts."""
    return [_filled(each, texts) for each in form] if isinstance(form, list) else next(texts)


__all__ = ["DataType", "PlainLines", "Seldon", "line_of", "message_of", "reply_of"]
