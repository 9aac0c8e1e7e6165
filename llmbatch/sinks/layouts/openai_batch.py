"""A finished run in; ``output.jsonl`` and ``error.jsonl`` out, as OpenAI's Batch API, and Azure's, leaves them.

What was answered is in the first, all else in the second. A file without lines is not there; Azure has the error file always.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.quick_json import json_line
from llmbatch.formats.openai.lines import PlainLines, line_of
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import BUFFER, Written, answered_of


class BatchSettings(BaseModel):
    """Of this layout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    azure: bool = Field(False, description="write error.jsonl also where it is empty")
    created: int | None = Field(
        None, ge=0, description="in Unix seconds, when the answers are said to be of; by default when the run began"
    )
    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the request's own response_format is an error"
    )


class OpenAIBatch:
    """Implements ``Layout``."""

    Settings = BatchSettings

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        output, errors = folder / "output.jsonl", folder / "error.jsonl"
        strict, created = self._settings.errors == "strict", self._settings.created
        if created is not None:
            finished = replace(finished, created=created)
        plain = PlainLines(finished.model, finished.created)
        with output.open("xb", BUFFER) as good, errors.open("xb", BUFFER) as bad:
            for record, row in finished.pairs():
                if (text := plain.line(record, row.data)) is not None:
                    good.write(text)
                    continue
                line = line_of(answered_of(finished, record, row), strict=strict)
                (good if line.ok else bad).write(json_line(line.data))
        if not output.stat().st_size:
            output.unlink()
        if not errors.stat().st_size and not self._settings.azure:
            errors.unlink()
        return Written([path for path in (errors, output) if path.exists()])
