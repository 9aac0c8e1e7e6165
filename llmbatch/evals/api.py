"""``llmbatch.evaluate``: a task and a model in, scores out, over the same machinery as the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.events import Watcher
from llmbatch.evals.evaluate import Asked, Evaluated
from llmbatch.evals.evaluate import evaluate as run_task
from llmbatch.evals.task import Task, load_task, task_from
from llmbatch.watch.watching import seen_by


def evaluate(
    task: Task | str | Path | Mapping[str, Any],
    *,
    model: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    until_interval: float | None = None,
    allow_code: bool = False,
    watchers: Sequence[Watcher] | None = None,
    **sections: Any,
) -> Evaluated:
    """Score a model on a task into a run folder, or go on with it. Arguments are those of ``llmbatch eval``.

    ``task`` is a task file, the name of a shipped task, or what a task file holds. ``sections`` are those of a job file that a task
    leaves open: ``engine={"args": {...}}``, ``sampling={"temperature": 0}``.

        done = llmbatch.evaluate("demo-numbers", model="demo", output="scores")
        print(done.scores.overall.figures["exact_match"])

    ``scores`` is None where the run was stopped. Raises ``UsageError`` before a model is loaded for what is wrong with the task,
    and ``RunError`` where the run broke; the same call goes on with it.
    """
    found = task if isinstance(task, Task) else task_from(task) if isinstance(task, Mapping) else load_task(str(task))
    if not isinstance(found, Task):
        raise JobError(f"{found.name}: is a group of tasks: evaluate each of {', '.join(found.tasks)}")
    copy = None if data is None else Path(data).expanduser()
    asked = Asked(
        str(model), Path(output).expanduser(), copy, limit, shuffle_seed, until_interval, allow_code, settings=sections
    )
    with seen_by(watchers) as watching:
        return run_task(found, asked, watching)


__all__ = ["evaluate"]
