"""OpenAI's batch format: requests, ``{"custom_id": ..., "url": ..., "body": {...}}``, in and out, and records out as lines.

What a body asks for, and how it is answered, is its endpoint's matter. Azure writes the URLs without ``/v1``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import short, type_name
from llmbatch.formats.base import Answered, Container
from llmbatch.formats.openai import chat, completions, embeddings, responses
from llmbatch.formats.openai.body import RequestError
from llmbatch.formats.outcome import Success

ENDPOINTS: Mapping[str, ModuleType] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/responses": responses,
}
"""URL -> the file with its ``read(body, adapters) -> Rendered`` and ``answer(answered, success) -> body``, and of those that are
written ``write(rendered) -> body``."""
CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = ENDPOINTS


class OpenAISettings(BaseModel):
    """Of this format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: Literal["rows", "strict"] = Field(
        "rows",
        description="strict: a file with which the Batch API would not begin (broken lines, ids that are there twice, another "
        "model or url) is refused before anything runs, and not only the row that it is about",
    )


class OpenAI:
    """The format; see ``formats/base.py``. A request without a URL is a chat one with messages, a completion one with a prompt."""

    Settings = OpenAISettings
    container: Container = "lines"
    id_field = "custom_id"
    keys = frozenset({"custom_id", "body"})
    takes_text = takes_prompt = False

    def __init__(self, settings: OpenAISettings) -> None:
        self.validated = settings.validation == "strict"

    def problem(self, line: Mapping[str, Any]) -> str | None:
        if isinstance(line.get("body"), dict) and "custom_id" in line:
            return None
        form = 'a request has the form {"custom_id": ..., "body": {...}}, and'
        if missing := [name for name in ("custom_id", "body") if name not in line]:
            return f"{form} this has no {' and no '.join(missing)}"
        if not isinstance(line["body"], Mapping):
            return f"{form} the body of this is not an object"
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        try:
            rendered = read_line(line, adapters)
        except RequestError as error:
            return Failure(FailureKind.PROMPT, str(error))
        if _is_blank(rendered.prompt) or (rendered.more and any(map(_is_blank, rendered.more))):
            return Failure(FailureKind.EMPTY_PROMPT, "the request's prompt is blank")
        return rendered

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """A LoRA adapter is named as the model, as vLLM's server has it. The id becomes text.

        vLLM's ``run-batch`` accepts such lines for chat prompts. Text prompts get the URL ``/v1/completions``, which OpenAI's batch
        takes and ``run-batch`` of vLLM 0.32 does not.
        """
        url = EMBEDDINGS if rendered.vector else COMPLETIONS if rendered.prompt.messages is None else CHAT
        name = rendered.lora or model
        body = {**({"model": name} if name else {}), **ENDPOINTS[url].write(rendered)}
        return {"custom_id": str(row_id), "method": "POST", "url": url, "body": body}

    def result(self, answered: Answered) -> dict[str, Any]:
        """A line has a ``response`` where the record is ok and else an ``error``, never both.

        ``custom_id`` is the record's id as text. An output that is not text becomes JSON text.
        """
        record = answered.record
        request = f"llmbatch-{record['index']}"
        line: dict[str, Any] = {"id": request, "custom_id": str(record["id"]), "response": None, "error": None}
        if record["status"] == "ok":
            body = answer(answered, Success(record["output"], record["finish_reason"]))
            if "choices" in body:
                body["usage"]["prompt_tokens_details"] = {"cached_tokens": record["usage"]["cached_tokens"]}
            line["response"] = {"status_code": 200, "request_id": request, "body": body}
        else:
            error = record.get("error") or {"kind": record["status"], "message": ""}
            line["error"] = {"code": error["kind"], "message": error["message"]}
        return line


def endpoint_of(url: Any) -> str | None:
    """The URL of ``ENDPOINTS`` that is meant, in OpenAI's spelling or in Azure's; ``None`` where there is none."""
    if not isinstance(url, str):
        return None
    if url in ENDPOINTS:
        return url
    spelled = url if url.startswith("/v1/") else f"/v1{url}"
    return spelled if spelled in ENDPOINTS else None


def read_line(line: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a line asks for. Raises ``RequestError``."""
    url, method, body = line.get("url"), line.get("method"), line.get("body")
    endpoint = endpoint_of(url)
    if url is not None and endpoint is None:
        raise RequestError(f"the url {short(url)} is not supported; known are {', '.join(ENDPOINTS)}", "url")
    if method is not None and method != "POST":
        raise RequestError(f"the method must be POST, not {short(method)}", "method")
    if body.__class__ is not dict and not isinstance(body, Mapping):
        raise RequestError(f"the request's body must be an object, and is of type {type_name(body)}", "body")
    return read_body(endpoint, body, adapters)


def read_body(endpoint: str | None, body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for that was sent to a URL of ``ENDPOINTS``, or to one that is not known. Raises ``RequestError``."""
    if endpoint in (EMBEDDINGS, RESPONSES):
        rendered: Rendered = ENDPOINTS[endpoint].read(body, adapters)
        return rendered
    messages, text = body.get("messages"), body.get("prompt")
    if (messages is None) == (text is None):
        seen = "neither" if messages is None else "both"
        raise RequestError(f"the body must have either messages or prompt, and has {seen}", "messages")
    return completions.read(body, adapters) if messages is None else chat.read(body, adapters)


def answer(answered: Answered, success: Success) -> dict[str, Any]:
    """The body that answers a row: as its URL has it, and of a row that is no request of this format, as it was asked."""
    endpoint = endpoint_of(answered.row.get("url")) if "body" in answered.row else None
    if endpoint is None:
        asked = answered.asked
        endpoint = EMBEDDINGS if asked.vector else CHAT if asked.chat else COMPLETIONS
    body: dict[str, Any] = ENDPOINTS[endpoint].answer(answered, success)
    return body


def _is_blank(prompt: Prompt) -> bool:
    if prompt.ids is not None:
        return False
    last = prompt.messages[-1]["content"] if prompt.messages else prompt.text
    return not last or (isinstance(last, str) and last.isspace())
