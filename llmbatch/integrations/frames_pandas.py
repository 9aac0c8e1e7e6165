"""``df.llmbatch.run(...)``: a pandas DataFrame in; the same rows under the same index, with their answers, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from llmbatch.core.errors import JobError
from llmbatch.core.events import Watcher
from llmbatch.integrations.frames import JobArguments, TableJob

_BATCH = 1024  # rows that are Python objects at a time
# those of pandas that have room for a missing value; anything else is as pandas takes it
_DTYPES = {"int64": "Int64", "bool": "boolean"}


@pd.api.extensions.register_dataframe_accessor("llmbatch")
class LlmbatchAccessor:
    """What a DataFrame can do with llmbatch. The frame itself is left as it is."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def run(
        self, *, output: str | Path | None = None, watchers: Sequence[Watcher] = (), **job: Unpack[JobArguments]
    ) -> pd.DataFrame:
        """Ask for every row; the columns are the prompt's variables. A row that fails has no output, and an error.

            df.llmbatch.run(model="demo", prompt="Summarize: {{ text }}", sampling={"max_tokens": 64})

        Index, order and length stay. With ``output`` it is a run in that folder, which the same call goes on with; else nothing is
        left on disk. Missing values (NaN, NaT, None) are null, dates ISO 8601, decimals text. Raises as ``llmbatch.run`` does.
        """
        frame = self._frame
        names = _names(frame)
        table = TableJob(job)
        answers = table.answers(rows_of(frame), len(frame), names, output, watchers)
        result = frame.copy(deep=False)
        for name, values in answers.items():
            kind = str(table.types[name])
            dtype: Any = object if kind.startswith(("struct", "list")) else _DTYPES.get(kind)
            result[name] = pd.Series(
                values, dtype=dtype
            ).array  # without an index: that of the frame may have labels twice
        return result


def _names(frame: pd.DataFrame) -> list[str]:
    """The columns' names as text. Raises ``JobError`` where they do not tell columns apart."""
    if frame.columns.nlevels > 1:
        raise JobError(
            "the columns have several levels, and a prompt's variables one name each: flatten df.columns first"
        )
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise JobError(
            f"there are several columns called {', '.join(twice)}: rename them, so that a prompt can tell them apart"
        )
    return names


def rows_of(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    """The rows by column, with Python's values; a missing one is None. Raises ``JobError`` as ``run`` does."""
    names = _names(frame)
    for start in range(0, len(frame), _BATCH):
        part = frame.iloc[start : start + _BATCH]
        columns = [_objects(part.iloc[:, place]) for place in range(len(names))]
        if not columns:
            yield from ({} for _ in range(len(part)))
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _objects(column: pd.Series[Any]) -> list[Any]:
    """A column's values as Python's, missing ones as None."""
    if isinstance(column.dtype, pd.PeriodDtype | pd.IntervalDtype):
        column = column.astype("string")
    there = column.notna()
    return [value if here else None for value, here in zip(column.astype(object), there, strict=True)]


__all__ = ["LlmbatchAccessor", "rows_of"]
