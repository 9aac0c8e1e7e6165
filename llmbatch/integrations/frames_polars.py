"""``df.llmbatch.run(...)``: a polars DataFrame in; the same rows in the same order, with their answers, out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from llmbatch.core.events import Watcher
from llmbatch.core.imports import extra
from llmbatch.integrations.frames import JobArguments, TableJob

pl = extra("polars", "polars", "llmbatch.polars")


@pl.api.register_dataframe_namespace("llmbatch")
class LlmbatchNamespace:
    """What a DataFrame can do with llmbatch. The frame itself is left as it is."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def run(
        self, *, output: str | Path | None = None, watchers: Sequence[Watcher] = (), **job: Unpack[JobArguments]
    ) -> Any:
        """Ask for every row; the columns are the prompt's variables. A row that fails has no output, and an error.

            df.llmbatch.run(model="demo", prompt="Summarize: {{ text }}", sampling={"max_tokens": 64})

        Order and length stay; answers by a schema are a struct. With ``output`` it is a run in that folder, which the same call
        goes on with; else nothing is left on disk. Raises as ``llmbatch.run`` does.
        """
        frame = self._frame
        table = TableJob(job)
        answers = table.answers(frame.iter_rows(named=True), frame.height, frame.columns, output, watchers)
        return frame.hstack(pl.from_arrow(table.table(answers)))


__all__ = ["LlmbatchNamespace"]
