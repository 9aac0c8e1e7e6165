"""A finished run in; what SageMaker's batch transform leaves of such a job out: for each object KEY of the input one KEY.out.

An object with a record that failed has no output at all, and the job is one that failed; the others have theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.words import clip
from llmbatch.formats.base import Answered
from llmbatch.formats.json_path import Misfit
from llmbatch.formats.outcome import Error, outcome_of
from llmbatch.formats.sagemaker import SageMaker, SageMakerSettings
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import Written, answered_of
from llmbatch.sinks.layouts.objects import by_object, output_objects

PLACEHOLDER = "ERROR"
_REASON = 1024  # characters of a FailureReason
_FIRST = 600  # of what is said of the first object


class SageMakerLayoutSettings(BaseModel):
    """How answers are put together; what is written of each is the format's: ``input.options``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = Field(
        None, description="objects are called by their names below it; by default below what they share"
    )
    assemble: Literal["line", "none"] = Field("line", description="a line a record, or one right behind the other")
    errors: Literal["lenient", "strict"] = Field(
        "lenient", description="strict: an answer that does not pass the check that its request asks for is an error"
    )
    on_error: Literal["fail", "placeholder"] = Field(
        "fail",
        description=f"placeholder: {PLACEHOLDER} in the place of a record that failed, and its object is written",
    )


class _RecordFailed(Exception):
    """A record has no output; in words."""


class SageMakerLayout:
    """Implements ``Layout``."""

    Settings = SageMakerLayoutSettings

    def __init__(self, settings: SageMakerLayoutSettings) -> None:
        self._settings = settings
        self._end = "\n" if settings.assemble == "line" else ""

    def write(self, finished: Finished, folder: Path) -> Written:
        source = finished.source()
        names = output_objects(source, self._settings.folder)
        format_ = SageMaker(SageMakerSettings.model_validate(finished.options))
        files: list[Path] = []
        failed: list[tuple[str, str]] = []
        for number, pairs in by_object(finished, source):
            rows = (answered_of(finished, record, row) for record, row in pairs)
            path = folder / names[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fill(path, rows, format_)
            except _RecordFailed as error:
                path.unlink()
                failed.append((names[number].removesuffix(".out"), str(error)))
            else:
                files.append(path)
        return Written(files, _reason(failed))

    def _fill(self, path: Path, rows: Iterable[Answered], format_: SageMaker) -> None:
        """Raises ``_RecordFailed`` for the first record without an output."""
        with path.open("x", encoding="utf-8", newline="") as stream:
            for number, row in enumerate(rows):
                outcome = outcome_of(row.record, row.asked, strict=self._settings.errors == "strict")
                try:
                    if isinstance(outcome, Error):
                        raise _RecordFailed(f"record {number} (line {row.line + 1}): {outcome.kind}: {outcome.message}")
                    try:
                        text = format_.written(row, outcome)
                    except Misfit as error:
                        said = f"record {number} (line {row.line + 1}): the output filter {error}"
                        raise _RecordFailed(said) from None
                except _RecordFailed:
                    if self._settings.on_error == "fail":
                        raise
                    text = format_.placeholder(row, PLACEHOLDER)
                stream.write(text + self._end)


def _reason(failed: list[tuple[str, str]]) -> str | None:
    """Why the job failed, as a ``FailureReason``: the first object and its record, and which others there are."""
    if not failed:
        return None
    (name, said), *more = failed
    others = f"; {len(more)} more failed: {', '.join(name for name, _ in more)}" if more else ""
    return clip(f"{name}: {clip(said, _FIRST)}{others}", _REASON)
