"""A finished run in; ``output.jsonl`` out, a V2 response or an error for every line, as ``mlserver infer`` writes them, in order.

Of several input files each has an output file, called as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.quick_json import json_line
from llmbatch.core.types import Row
from llmbatch.formats.v2 import PlainLines, line_of
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import Written, answered_of
from llmbatch.sinks.layouts.by_input import write_by_input


class LinesSettings(BaseModel):
    """Of this layout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the request's own guided_decoding is an error"
    )
    error_ids: bool = Field(False, description="an error has its request's id too, which the original's has not")


class V2Lines:
    """Implements ``Layout``."""

    Settings = LinesSettings

    def __init__(self, settings: LinesSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        plain, strict, ids = (
            PlainLines(finished.model, finished.created),
            self._settings.errors == "strict",
            self._settings.error_ids,
        )

        def line(record: dict[str, Any], row: Row) -> bytes:
            text = plain.line(record, row.data, row.cursor.line)
            return text or json_line(line_of(answered_of(finished, record, row), strict=strict, ids=ids))

        return Written(write_by_input(finished, folder, line))
