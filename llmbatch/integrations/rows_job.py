"""Rows of somebody's table in; a record for each of them, in their order, out: what all integrations of tables run rows by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.api import generate_job, job_given, run_rows
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.events import Watcher
from llmbatch.core.types import Record
from llmbatch.engines.base import EngineFactory
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.kinds import make_engine
from llmbatch.job.swept import recipe_of

_OTHERWISE = {
    "accept": "there is one record for every row, and every row has its place in the result: filter it afterwards",
    "sweep": "every row comes once: make a call for each setting",
    "input": "the rows are the table's; of input only id_field counts",
    "output": "give it beside the job, where there is a run folder",
}


class RowsJob:
    """A job for any number of tables: ``given`` are the arguments of ``llmbatch.generate``.

    With a ``keeper`` the engine that it keeps serves all of them; whoever made it closes it. ``job`` has an input and an output
    that stand for those of a table, ``recipe`` is the job's.

    Raises ``UsageError`` for what is wrong with the job, before a model is loaded wherever that can be known by then.
    """

    def __init__(self, given: Mapping[str, Any], keeper: EngineKeeper | None = None) -> None:
        input = given.get("input") or {}
        for name, instead in _OTHERWISE.items():
            if set(input) - {"id_field"} if name == "input" else name in given:
                raise JobError(f"{name}: {instead}")
        self._program = given.get("program")  # a function is there as long as somebody has it
        sections = {name: value for name, value in given.items() if name != "schema"}
        rows = {"output": "run", "input": {**input, "format": "jsonl", "path": "rows"}}
        self.job = job_given({**sections, **rows}, given.get("schema"))
        self.recipe = recipe_of(self.job)
        self._make: EngineFactory = make_engine if keeper is None else keeper.make_any

    def records(
        self,
        rows: Iterable[Mapping[str, Any]],
        count: int,
        output: str | Path | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> Iterator[Record]:
        """A record for each of so many rows; where there are none no engine is started.

        With ``output`` they are a run in that folder, which the same call goes on with. Raises as ``llmbatch.run`` does, and
        ``RunError`` where there are other records than one for each row.
        """
        if not count:
            return
        if output is None:
            records: Iterable[Record] = generate_job(rows, self.job, watchers, self._program, make=self._make)
        else:
            job = self.job.model_copy(update={"output": Path(output).expanduser()})
            records = run_rows(rows, job, watchers, make=self._make)
        made = 0
        for record in records:
            made += 1
            yield record
        if made != count:
            raise RunError(
                f"{count:,} rows have {made:,} records: a setting of the job leaves rows out, or has them twice"
            )


__all__ = ["RowsJob"]
