"""A finished run in; the folder that a BatchPredictionJob for a custom model leaves out: shards of predictions, and of errors.

``prediction-MODEL-TIME/prediction.results-00000-of-00001`` and ``prediction.errors_stats-00000-of-00001``, which is there, and
empty, where nothing failed.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from pydantic import AwareDatetime, Field, model_validator

from llmbatch.core.quick_json import json_line
from llmbatch.core.record import encode
from llmbatch.formats.base import RECORD, Answered
from llmbatch.formats.vertex import Vertex, VertexSettings
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import BUFFER, Written, answers

_ERROR_COLUMNS = ("error_code", "error_message")


class VertexLayoutSettings(VertexSettings):
    """Those of the format, which say what an instance is, and how the output is written."""

    model: str | None = Field(None, description="the model's name in the folder's; by default that of the job's model")
    predictions: Literal["jsonl", "csv"] = Field("jsonl", description="as what they are written")
    time: AwareDatetime | None = Field(None, description="in the folder's name; by default when the run began")
    shards: int = Field(1, ge=1, le=99_999, description="files that the predictions are in, one after another")
    rich: bool = Field(False, description="a prediction says how it ended and what it took")
    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the check that its instance asks for is an error"
    )

    @model_validator(mode="after")
    def _has_columns(self) -> VertexLayoutSettings:
        if self.predictions == "csv" and self.instances != "csv" and self.key_field is None:
            raise ValueError("predictions can be csv where the instances are, or have a key_field")
        return self


class _Line(NamedTuple):
    line: dict[str, Any]
    answered: Answered


class VertexLayout:
    Settings = VertexLayoutSettings

    def __init__(self, settings: VertexLayoutSettings) -> None:
        self._settings = settings
        self._format = Vertex(settings)

    def write(self, finished: Finished, folder: Path) -> Written:
        settings = self._settings
        place = prediction_folder(folder, settings.model or finished.model, time_of(settings.time, finished))
        size = None
        if settings.shards > 1:
            size = -(-sum(1 for _ in finished.lines()) // settings.shards)
        columns = self._columns(finished) if settings.predictions == "csv" else ()
        lines = self._lines(finished)
        files: list[Path] = []
        count = Counter[bool]()
        for number in range(settings.shards):
            of = f"{number:05d}-of-{settings.shards:05d}"
            files += [place / f"prediction.{kind}-{of}" for kind in ("errors_stats", "results")]
            self._write(_counted(islice(lines, size), count), files[-1], files[-2], columns)
        return Written(files, lines=(count[True], count[False]))

    def _lines(self, finished: Finished) -> Iterator[_Line]:
        strict, rich = self._settings.errors == "strict", self._settings.rich
        for each in answers(finished):
            yield _Line(self._format.line(each, strict=strict, rich=rich), each)

    def _write(self, lines: Iterable[_Line], results: Path, errors: Path, columns: Sequence[str]) -> None:
        if self._settings.predictions == "csv":
            with (
                results.open("w", encoding="utf-8", newline="") as table,
                errors.open("w", encoding="utf-8", newline="") as failed,
            ):
                self._write_csv(lines, table, failed, columns)
            return
        with results.open("wb", BUFFER) as good, errors.open("wb", BUFFER) as bad:
            for line, _ in lines:
                (bad if "error" in line else good).write(json_line(line))

    def _write_csv(self, lines: Iterable[_Line], good: TextIO, bad: TextIO, columns: Sequence[str]) -> None:
        results, errors = csv.writer(good, lineterminator="\n"), csv.writer(bad, lineterminator="\n")
        results.writerow([*columns, "prediction"])
        errors.writerow([*columns, *_ERROR_COLUMNS])
        for line, each in lines:
            record = {"key": line["key"]} if "key" in line else each.row.get(RECORD, {})
            start = [record.get(column, "") for column in columns]
            if "error" in line:
                errors.writerow([*start, line["error"]["code"], line["error"]["message"]])
            else:
                said = line["prediction"]
                results.writerow([*start, said if isinstance(said, str) else encode(said)])

    def _columns(self, finished: Finished) -> list[str]:
        """The columns of all files of the input; of a job with a key that alone."""
        if self._settings.key_field is not None:
            return ["key"]
        source = finished.source()
        columns: dict[str, None] = {}
        for row in source.rows():
            columns.update(dict.fromkeys(row.data.get(RECORD, ())))
            if columns and len(source.files()) == 1:
                break
        return list(columns)


def _counted(lines: Iterable[_Line], count: Counter[bool]) -> Iterator[_Line]:
    """The lines, counted by whether they are predictions."""
    for each in lines:
        count["error" not in each.line] += 1
        yield each


def time_of(given: datetime | None, finished: Finished) -> datetime:
    """The time that an output bears, in UTC: the same however often the run was resumed."""
    return given.astimezone(UTC) if given is not None else datetime.fromtimestamp(finished.created, UTC)


def prediction_folder(folder: Path, model: str, time: datetime) -> Path:
    """Make the folder for the predictions of a model."""
    place = folder / prediction_name(model, time)
    place.mkdir(parents=True)
    return place


def prediction_name(model: str, time: datetime) -> str:
    """What it is called; ``time`` is in UTC."""
    name = re.sub(r"[^\w.-]+", "-", model.rstrip("/").rpartition("/")[2]) or "model"
    return f"prediction-{name}-{time.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
