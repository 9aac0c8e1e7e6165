"""Bedrock's batch format, both ways: ``{"recordId": ..., "modelInput": {...}}`` in, the same with a reply or an error out.

A body is of one of several families, which its keys tell, and the model where they leave it open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.table import find
from llmbatch.core.types import Failure, Rendered, RowId
from llmbatch.core.words import short, type_name
from llmbatch.formats.base import Answered, Container, wire_format
from llmbatch.formats.bedrock import FAMILIES, PROVIDERS
from llmbatch.formats.bedrock.base import BodyError, Family, Reply
from llmbatch.formats.outcome import Error, Success, outcome_of

_REGIONS = frozenset({"us", "us-gov", "eu", "apac", "ap", "au", "ca", "jp", "global"})
"""What may stand before a ``modelId``: an inference profile's."""


class BedrockSettings(BaseModel):
    """What a job says of its bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = Field(None, description="the modelId; its first part says which bodies it takes")
    invocation: Literal["InvokeModel", "Converse"] = Field(
        "InvokeModel", description="Converse: all bodies are Converse's"
    )


class Bedrock:
    """The format; see ``formats/base.py``."""

    Settings = BedrockSettings
    container: Container = "lines"
    id_field = "recordId"
    keys = frozenset({"modelInput"})
    takes_text = takes_prompt = False

    def __init__(self, settings: BedrockSettings) -> None:
        self._settings = settings
        self._provider = provider_of(settings.model)

    def problem(self, line: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        try:
            body = _body(line)
            return self.family(body).read(body, adapters)
        except BodyError as error:
            return Failure(error.kind, str(error))

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """A chat body in OpenAI's form; of a text prompt one with a ``prompt``."""
        return {"recordId": str(row_id), "modelInput": wire_format("openai").write(row_id, rendered, model)["body"]}

    def result(self, answered: Answered) -> dict[str, Any]:
        return self.line(answered)

    def line(self, answered: Answered, *, strict: bool = False) -> dict[str, Any]:
        """The line with ``modelOutput``, or with an ``error``, never both."""
        record, row = answered.record, answered.row
        line = {"recordId": record_id(row, record["index"]), "modelInput": row.get("modelInput")}
        outcome = outcome_of(record, answered.asked, strict=strict)
        if isinstance(outcome, Error):
            return {**line, "error": {"errorCode": outcome.code.http, "errorMessage": outcome.message}}
        body = _body(row)
        return {**line, "modelOutput": self.family(body).write(self._reply(answered, outcome, body))}

    def _reply(self, answered: Answered, success: Success, body: Mapping[str, Any]) -> Reply:
        """What came behind the start of the answer that the body brings."""
        text = success.text
        if begins_answer(body):
            asked = self.family(body).read(body, ())
            text = text.removeprefix(asked.prompt.prefill)
        cut = success.finish_reason == "length"
        return Reply(text, success.output, cut, self.model or answered.model, answered)

    @property
    def model(self) -> str | None:
        """The ``modelId`` of all replies, where the job says one."""
        return self._settings.model

    def family(self, body: Mapping[str, Any]) -> Family:
        """The family of a body. Raises ``BodyError`` for one of another family than the model's, and for one of none."""
        if self._settings.invocation == "Converse":
            return family_called("converse")
        own = PROVIDERS.get(self._provider or "", ())
        for name in own or FAMILIES:
            if (family := family_called(name)).fits(body):
                return family
        if own:
            other = next((name for name in FAMILIES if family_called(name).fits(body)), None)
            if other is None:
                return family_called(own[0])  # which says what is wrong with it
            raise BodyError(
                f"modelInput is a body of the family {other}, and the model {short(self._settings.model)} takes one of "
                f"{' or '.join(own)}"
            )
        if "prompt" in body:
            return family_called("mistral")
        keys = ", ".join(map(short, list(body)[:8])) or "none"
        raise BodyError(
            f"modelInput is a body of no known family: its keys are {keys}; known are {', '.join(FAMILIES)}"
        )


@cache
def family_called(name: str) -> Family:
    found: Family = find(FAMILIES, name, "family of models")
    return found


def provider_of(model: str | None) -> str | None:
    """``anthropic`` for ``us.anthropic.claude-...`` and for the ARN of one; ``None`` where the name has no such part."""
    parts = (model or "").rpartition("/")[2].split(".")
    if len(parts) > 1 and parts[0] in _REGIONS:
        parts = parts[1:]
    return parts[0] if len(parts) > 1 and parts[0] in PROVIDERS else None


def made_id(index: int) -> str:
    """The id of a record that brings none."""
    return f"REC{index:08d}"


def record_id(row: Mapping[str, Any], index: int) -> Any:
    """What the line of a row calls it."""
    return row["recordId"] if "recordId" in row else made_id(index)


def begins_answer(body: Mapping[str, Any]) -> bool:
    """Whether the last message of a body that was read is the start of the answer."""
    messages: Any = body.get("messages")
    return bool(messages) and messages[-1]["role"] == "assistant"


def _body(line: Mapping[str, Any]) -> Mapping[str, Any]:
    if "modelInput" not in line:
        keys = ", ".join(map(short, list(line)[:8])) or "none"
        raise BodyError(
            f'a record has the form {{"recordId": ..., "modelInput": {{...}}}}, and the keys of this are {keys}'
        )
    body = line["modelInput"]
    if not isinstance(body, dict):
        raise BodyError(f"modelInput must be an object, and is of type {type_name(body)}")
    return body
