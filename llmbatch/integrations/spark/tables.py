"""Rows of a table in, in a Python worker of Spark; what each came to out, by the one engine of the executor.

For models that Spark has in every one of its workers, such as MLflow's: each of these would load its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.engines.guardian import start_time
from llmbatch.integrations.spark.base import Call
from llmbatch.integrations.spark.hosting import Hosting, answered, executor, task
from llmbatch.integrations.spark.wire import Answer
from llmbatch.job.job import Job
from llmbatch.sources.rows import plain


def in_task() -> bool:
    """Whether this process works on a task of Spark's."""
    return task() is not None


def executor_answers(job: Job, rows: Sequence[Mapping[str, Any]], folder: str | None = None) -> list[Answer]:
    """The answer of each row, or why it has none; an answer that is no text is JSON text.

    ``folder`` is as ``Hosting`` has it. Raises as ``answered`` does, but for a row without an answer.
    """
    data = {**job.absolute().data(), "input": {"path": "rows", "format": "jsonl"}, "output": "run"}
    pid = executor()
    hosting = Hosting(f"models of {pid} {start_time(pid)}", folder=folder)
    (answers,) = answered([[plain(row) for row in rows]], Call(data, fails=False), hosting)
    return answers


__all__ = ["executor_answers", "in_task"]
