"""A finished run in; what a batch on Bedrock leaves out: JOBID/NAME.jsonl.out for each object of the input, and their counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.quick_json import json_line
from llmbatch.formats.bedrock.format import Bedrock, BedrockSettings
from llmbatch.formats.bedrock.lines import PlainLines
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import BUFFER, Written, answered_of
from llmbatch.sinks.layouts.objects import by_object, output_objects

MANIFEST = "manifest.json.out"


class BedrockLayoutSettings(BaseModel):
    """``job`` is the last part of the job's ARN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str = Field("llmbatch0000", pattern=r"^[a-z0-9]{12}$", description="the job's id, which its folder is called")
    folder: str | None = Field(
        None, description="objects are called by their names below it; by default below what they share"
    )
    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the check that its request asks for is an error"
    )


class BedrockLayout:
    """Implements ``Layout``."""

    Settings = BedrockLayoutSettings

    def __init__(self, settings: BedrockLayoutSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        source = finished.source()
        names = output_objects(source, self._settings.folder)
        format_ = Bedrock(BedrockSettings.model_validate(finished.options))
        strict = self._settings.errors == "strict"
        place = folder / self._settings.job
        files: list[Path] = []
        counts: Counter[str] = Counter()
        plain = PlainLines(format_, finished.model)
        for number, pairs in by_object(finished, source):
            path = place / names[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb", BUFFER) as stream:
                for record, row in pairs:
                    text = plain.line(record, row.data)
                    if text is None:
                        line = format_.line(answered_of(finished, record, row), strict=strict)
                        counts["errors"] += "error" in line
                        text = json_line(line)
                    stream.write(text)
                    counts["total"] += 1
                    counts["in"] += record["usage"]["prompt_tokens"]
                    counts["out"] += record["usage"]["completion_tokens"]
            files.append(path)
        manifest = place / MANIFEST
        manifest.write_bytes(json_line(_manifest(counts)))
        return Written([*files, manifest])


def _manifest(counts: Counter[str]) -> dict[str, int]:
    """Every row has its record by now: all were processed."""
    return {
        "totalRecordCount": counts["total"],
        "processedRecordCount": counts["total"],
        "successRecordCount": counts["total"] - counts["errors"],
        "errorRecordCount": counts["errors"],
        "inputTokenCount": counts["in"],
        "outputTokenCount": counts["out"],
    }
