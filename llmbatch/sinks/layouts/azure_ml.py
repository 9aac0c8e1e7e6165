"""A finished run in; the output file of Azure ML's ``append_row``, and the log of what failed, out.

A row is file, index within the file, and text, as pandas writes a DataFrame with spaces between the columns and without names:
``pd.read_csv(path, header=None, sep=" ")`` reads it back. A row that failed is in ``logs/user/error.txt`` instead.
"""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.words import one_line
from llmbatch.formats.outcome import Success, outcome_of
from llmbatch.sinks.base import Finished
from llmbatch.sinks.layouts.base import Written, answered

NOTHING_SUCCEEDED = "No succeeded mini batch item returned from run()"
_ERRORS = Path("logs") / "user" / "error.txt"


class AppendRowSettings(BaseModel):
    """``output_file_name`` is ``None`` for ``summary_only``: then rows are counted, and not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_file_name: str | None = Field("predictions.csv", min_length=1)
    error_threshold: int = Field(-1, ge=-1)


class AzureML:
    """Implements ``Layout``."""

    Settings = AppendRowSettings

    def __init__(self, settings: AppendRowSettings) -> None:
        self._settings = settings

    def write(self, finished: Finished, folder: Path) -> Written:
        names = finished.source().files()
        name = self._settings.output_file_name
        files = [folder / _ERRORS, *([] if name is None else [folder / name])]
        (folder / _ERRORS).parent.mkdir(parents=True)
        rows = failed = 0
        file, index = -1, 0  # of the row at hand, in its file
        with ExitStack() as stack:
            errors = stack.enter_context((folder / _ERRORS).open("w", encoding="utf-8"))
            output = (
                None if name is None else stack.enter_context((folder / name).open("w", encoding="utf-8", newline=""))
            )
            table = None if output is None else csv.writer(output, delimiter=" ", lineterminator="\n")
            for number, row in answered(finished):
                file, index = number, index + 1 if number == file else 0
                outcome = outcome_of(row.record, row.asked)
                rows += 1
                if isinstance(outcome, Success):
                    if table is not None:
                        table.writerow((names[file], index, outcome.text))
                else:
                    failed += 1
                    errors.write(f"{names[file]} {index}: {outcome.kind}: {one_line(outcome.message, 1000)}\n")
        return Written(files, self._failure(rows, failed))

    def _failure(self, rows: int, failed: int) -> str | None:
        if rows == failed:
            return f"{NOTHING_SUCCEEDED}: all {rows} rows failed, see {_ERRORS}"
        if 0 <= self._settings.error_threshold < failed:
            return (
                f"{failed} rows failed, and error_threshold tolerates {self._settings.error_threshold}: see {_ERRORS}"
            )
        return None
