"""A finished run in; ``output.jsonl`` out, a Seldon message or a failure for every line, as ``seldon-batch-processor`` writes them.

In input order. Of several input files each has an output file, called as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.record import json_encoder
from llmbatch.core.types import Row
from llmbatch.formats.seldon import DataType, PlainLines, line_of
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import Written, answered_of
from llmbatch.sinks.layouts.by_input import write_by_input

_encode = json_encoder(json.JSONEncoder(ensure_ascii=False))


class MessagesSettings(BaseModel):
    """Of this layout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_id: str = Field("batch", min_length=1, description="the name of the batch, which stands in every message")
    data_type: DataType | None = Field(
        None, description="what a line of the input is, where it is json that looks like another type"
    )
    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that was cut off is a failure"
    )


class SeldonLines:
    """Implements ``Layout``."""

    Settings = MessagesSettings

    def __init__(self, settings: MessagesSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        given = self._settings
        strict = given.errors == "strict"
        plain = PlainLines(given.data_type, given.batch_id, _encode)

        def line(record: dict[str, Any], row: Row) -> bytes:
            if (text := plain.line(record, row.data, row.cursor.line)) is not None:
                return text
            message = line_of(answered_of(finished, record, row), given.data_type, given.batch_id, strict=strict)
            return _encode(message).encode() + b"\n"

        return Written(write_by_input(finished, folder, line))
