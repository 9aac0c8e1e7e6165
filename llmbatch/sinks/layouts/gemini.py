"""A finished run in; what a batch of Gemini's leaves out: of Vertex AI a folder with ``predictions.jsonl``, else one file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from llmbatch.core.quick_json import json_line
from llmbatch.formats.gemini.lines import api_line, vertex_line
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import Written, answers
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
        return _written(path, (vertex_line(each, strict=strict, time=said) for each in answers(finished)))


class GeminiApiLayout:
    Settings = GeminiLayoutSettings

    def __init__(self, settings: GeminiLayoutSettings) -> None:
        self._strict = settings.errors == "strict"

    def write(self, finished: Finished, folder: Path) -> Written:
        lines = (api_line(each, strict=self._strict) for each in answers(finished))
        return _written(folder / "responses.jsonl", lines)


def _written(path: Path, lines: Iterable[dict[str, Any]]) -> Written:
    done = failed = 0
    with path.open("wb") as stream:
        for line in lines:
            stream.write(json_line(line))
            if line.get("response"):
                done += 1
            else:
                failed += 1
    return Written([path], lines=(done, failed))
