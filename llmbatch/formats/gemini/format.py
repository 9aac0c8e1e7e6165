"""Gemini's batch formats, both ways: requests, ``{"request": {"contents": [...], "generationConfig": {...}, ...}}``, in and out,
and records out as the lines of a batch's output, of Vertex AI (``gemini``) and of the Gemini API (``gemini_api``, with a ``key``).

What changes the answer and is not known here is a failure of that row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmbatch.core.types import Failure, FailureKind, Rendered, RowId
from llmbatch.formats.base import Answered, Container, NoSettings
from llmbatch.formats.gemini.lines import api_line, vertex_line
from llmbatch.formats.gemini.requests import Config, RequestProblem, read_config, read_request
from llmbatch.formats.gemini.schema import SchemaProblem
from llmbatch.formats.gemini.written import write_request


class Gemini:
    """The format on Vertex AI; see ``formats/base.py``. Nothing tells its requests from rows with a field of that name."""

    Settings = NoSettings
    container: Container = "lines"
    id_field: str | None = None
    keys: frozenset[str] = frozenset()
    takes_text = takes_prompt = False
    role: str | None = None  # of a content that says none

    def __init__(self, _settings: NoSettings) -> None:
        self._last = "", Config()  # most requests of a batch have the same one

    def problem(self, line: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - its line of the output shows whatever is in it
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        try:
            rendered = read_request(line.get("request"), self.role, adapters, self._config)
        except (RequestProblem, SchemaProblem) as error:
            return Failure(FailureKind.PROMPT, str(error))
        return rendered or Failure(FailureKind.EMPTY_PROMPT, "the request's prompt is blank")

    def _config(self, given: Any) -> Config:
        said = repr(given)  # in which 1 and true are not the same
        if said != self._last[0]:
            self._last = said, read_config(given)
        return self._last[1]

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        """The id becomes a label."""
        return {"request": {**write_request(rendered, model), "labels": {"custom_id": str(row_id)}}}

    def result(self, answered: Answered) -> dict[str, Any]:
        return vertex_line(answered)


class GeminiApi(Gemini):
    """The format of the Gemini API."""

    id_field = "key"
    keys = frozenset({"key", "request"})
    role = "user"

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:
        return {"key": row_id, "request": write_request(rendered, model)}

    def result(self, answered: Answered) -> dict[str, Any]:
        return api_line(answered)
