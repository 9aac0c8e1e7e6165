"""A finished run in; what a batch of Gemini's leaves out: of Vertex AI a folder with ``predictions.jsonl``, else one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from llmbatch.core.quick_json import json_line
from llmbatch.formats.base import Answered
from llmbatch.formats.gemini.lines import PlainLines, api_line, vertex_line
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import BUFFER, Written, answered_of
from llmbatch.sinks.layouts.vertex import prediction_folder, time_of


class GeminiLayoutSettings(BaseModel):
    """What counts as an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the check that its request asks for is an error"
    )


class GeminiVertexSettings(GeminiLayoutSettings):
    """And of which time it is."""

    time: AwareDatetime | None = Field(
        None,
        description="in the folder's name, and at which its lines are said to be done; by default when the run began",
    )


class GeminiLayout:
    """That of Vertex AI."""

    Settings = GeminiVertexSettings

    def __init__(self, settings: GeminiVertexSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        time = time_of(self._settings.time, finished)
        path = prediction_folder(folder, "model", time) / "predictions.jsonl"
        strict, said = self._settings.errors == "strict", time.isoformat(timespec="milliseconds")
        plain = PlainLines(finished.model, said)
        return _written(path, finished, plain, lambda each: vertex_line(each, strict=strict, time=said))


class GeminiApiLayout:
    Settings = GeminiLayoutSettings

    def __init__(self, settings: GeminiLayoutSettings) -> None:
        self._strict = settings.errors == "strict"

    def write(self, finished: Finished, folder: Path) -> Written:
        plain = PlainLines(finished.model, None)
        return _written(folder / "responses.jsonl", finished, plain, lambda each: api_line(each, strict=self._strict))


def _written(
    path: Path, finished: Finished, plain: PlainLines, in_full: Callable[[Answered], dict[str, Any]]
) -> Written:
    rows = failed = 0
    with path.open("wb", BUFFER) as stream:
        for record, row in finished.pairs():
            rows += 1
            text = plain.line(record, row.data)
            if text is None:
                line = in_full(answered_of(finished, record, row))
                failed += not line.get("response")
                text = json_line(line)
            stream.write(text)
    return Written([path], lines=(rows - failed, failed))
