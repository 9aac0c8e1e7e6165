"""Rows of a Ray Data pipeline in; the same rows with what became of each out: a stage, one record a row, in order.

    ds.map_batches(
        llmbatch.ray.Stage, fn_constructor_kwargs={"model": ..., "prompt": ...}, batch_size=4096, concurrency=8, num_gpus=1
    )

Each of Ray's workers keeps one engine for all of its batches. A batch is a run of its own, in a temporary folder: duplicates and
shared prefixes are found within it, retries and programs end with it, so large batches are better.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.api import AProgram, Schema
from llmbatch.core.errors import JobError
from llmbatch.core.imports import extra
from llmbatch.core.record import record_to_dict
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.integrations.rows_job import RowsJob
from llmbatch.sinks.parquet import table_of

COLUMNS = (
    "status", "output", "finish_reason", "attempts", "prompt_tokens", "completion_tokens", "cached_tokens",
    "error_kind", "error_message", "raw", "reasoning", "details",
)  # fmt: skip
"""What is added to each row; as in ``results.parquet``: an output that is no text is JSON text."""


class Stage:
    """A callable class for ``map_batches``. Arguments are those of ``llmbatch.generate``; ``prefix`` goes before the new columns.

    A row that fails keeps its place and says so: ``status``, ``error_kind``, ``error_message``. Raises ``UsageError`` for what is
    wrong with the job, before a model is loaded wherever that can be known by then.
    """

    def __init__(
        self,
        *,
        model: str | Path,
        prompt: str | Path | Mapping[str, Any] | None = None,
        program: AProgram | None = None,
        schema: Schema | None = None,
        prefix: str = "",
        **sections: Mapping[str, Any],
    ) -> None:
        given = {"model": model, "prompt": prompt, "program": program, "schema": schema}
        self._rows = RowsJob({**given, **sections}, EngineKeeper())
        if self._rows.job.engine.cluster is not None:
            raise JobError(
                "engine.cluster: Ray Data places this stage itself: give map_batches num_gpus and concurrency"
            )
        self._prefix = prefix

    def __call__(self, batch: Any) -> Any:
        """A batch in any of Ray Data's formats -> an Arrow table of the same rows, with ``COLUMNS`` beside theirs."""
        block = extra("ray.data.block", "ray", "a stage of Ray Data").BlockAccessor
        rows = block.for_block(block.batch_to_block(batch)).to_arrow()
        names = {name: f"{self._prefix}{name}" for name in COLUMNS}
        if there := sorted(set(names.values()) & set(rows.column_names)):
            raise JobError(f"the rows have columns of these names already: {', '.join(there)}; give the stage a prefix")
        found = self._rows.records(rows.to_pylist(), rows.num_rows)
        records = table_of(record_to_dict(record) for record in found)
        for column, name in names.items():
            rows = rows.append_column(name, records.column(column))
        return rows


__all__ = ["COLUMNS", "Stage"]
