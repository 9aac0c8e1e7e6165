"""A task and a model in; a run folder with the scores of the model on the task out.

The folder is one like any other: the same call goes on with it, and what is there is not asked again. It has besides

    task.yaml        the task as it was, with all of it resolved
    examples.jsonl   every row, with its references, what was read from its output, and what each metric makes of it
    scores.json      the figures with their intervals

The last two are made of the records alone, whenever the run is finished: the same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import FolderError, JobError, PromptError, SourceError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.engines.base import EngineFactory, make_engine
from llmbatch.evals.base import Metric
from llmbatch.evals.job import PROMPT, job_of_task, prompt_file
from llmbatch.evals.outcome import examples_of, read_lines
from llmbatch.evals.rows import Rows, fingerprint
from llmbatch.evals.scores import Scored, Scores, score
from llmbatch.evals.task import Task, task_from
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input_copy import KEPT, keep
from llmbatch.job.file import job_text
from llmbatch.job.job import Job, job_of
from llmbatch.job.swept import recipe_of
from llmbatch.prompt.document import read_document
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult, run_job

TASK = "task.yaml"


class Asked(NamedTuple):
    """How a task is run. ``data`` is a local copy of its data set; ``settings`` are further sections of the job."""

    model: str
    output: Path
    data: Path | None = None
    limit: int | None = None
    shuffle_seed: int | None = None
    allow_code: bool = False
    settings: Mapping[str, Any] = {}


class Evaluated(NamedTuple):
    """A task's run and its scores; None where it did not finish."""

    result: RunResult
    scores: Scores | None


def evaluate(
    task: Task,
    asked: Asked,
    watchers: Sequence[Watcher] = (),
    *,
    make: EngineFactory = make_engine,
    stop: Stop | None = None,
) -> Evaluated:
    """Score a model on a task, or go on with it.

    Raises ``UsageError`` before a model is loaded for what is wrong with the task, its data or the settings, and ``RunError`` where
    the run broke; the same call goes on with it.
    """
    task.metrics_made(allow_code=asked.allow_code)
    job = _job(task, asked)
    _prepare(task, job, asked, watchers)
    result = run_job(job, watchers, make=make, stop=stop)
    scores = score_folder(asked.output, allow_code=asked.allow_code) if result.outcome == "finished" else None
    return Evaluated(result, scores)


def score_folder(folder: Path, *, allow_code: bool = False) -> Scores:
    """Write the scores of a finished run anew, from its records. Raises ``FolderError`` where it is no run of a task."""
    task = task_of(folder)
    job = job_of(folder)
    metrics = task.metrics_made(allow_code=allow_code)
    rows = (line for line in read_lines(folder) if isinstance(line, dict))
    scored = Scored(task.name, digest_of(task, metrics), fingerprint(rows), job.model)
    return score(examples_of(folder, task), metrics, scored, folder)


def task_of(folder: Path) -> Task:
    """The task of a run folder. Raises ``FolderError``."""
    path = folder / TASK
    try:
        found = task_from(read_document(path.read_text(encoding="utf-8"), str(path)).value, where=str(path))
    except FileNotFoundError:
        raise FolderError(f"{folder}: there is no {TASK} in it, so it is no run of llmbatch eval") from None
    except (OSError, ValueError, PromptError, JobError) as error:
        raise FolderError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, Task):
        raise FolderError(f"{path}: is a group of tasks, and a run is of one")
    return found


def digest_of(task: Task, metrics: Sequence[Metric]) -> str:
    """Of what decides the questions and how answers are read. How they are asked (prompt, examples, sampling) may differ."""
    data = task.data()
    decides = {key: data.get(key) for key in ("name", "ask", "prepare", "fields", "choices", "references", "read")}
    decides["dataset"] = {key: data["dataset"].get(key) for key in ("config", "split")}
    decides["metrics"] = [[metric.name, metric.kind_name, metric.kind.version] for metric in metrics]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _job(task: Task, asked: Asked) -> Job:
    settings = {
        name: dict(section) if isinstance(section, Mapping) else section for name, section in asked.settings.items()
    }
    job = job_of_task(task, asked.model, asked.output, settings)
    return (
        job
        if asked.limit is None
        else job.model_copy(update={"input": job.input.model_copy(update={"limit": asked.limit})})
    )


def _prepare(task: Task, job: Job, asked: Asked, watchers: Sequence[Watcher]) -> None:
    """Write the rows that the run reads, and the task, into its folder, or see that they are those that are there."""
    folder = RunFolder(asked.output)
    folder.open()
    try:
        if (prompt := prompt_file(task)) is not None and not _has(asked.output / PROMPT, prompt):
            if folder.manifest is not None and folder.begun:
                raise JobError(f"{asked.output}: holds a run with another prompt; give another output to begin anew")
            atomic_write(asked.output / PROMPT, prompt)
        recipe_of(job)  # all that can be wrong about prompt and sampling
        text = job_text(task.data(), None, Task).encode()
        try:
            rows = Rows(task, asked.data)
        except SourceError as error:
            if not _has(asked.output / TASK, text) or not (asked.output / KEPT).exists():
                raise
            for watcher in watchers:
                watcher(Note("warning", f"{error}. The run goes on with the rows that it has in {asked.output / KEPT}"))
            return

        def refusal(_grown: bool) -> JobError:
            return JobError(
                f"{asked.output}: holds a run on other rows: of another task or data set, with other examples, or shuffled "
                "otherwise; give another output to begin anew"
            )

        keep(folder, rows.lines(asked.shuffle_seed), extend=False, check=_see_rows, refusal=refusal)
        atomic_write(asked.output / TASK, text)
    finally:
        folder.close()


def _see_rows(path: Path) -> None:
    if not path.stat().st_size:
        raise SourceError("there is no row in the data set")


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


__all__ = ["TASK", "Asked", "Evaluated", "digest_of", "evaluate", "score_folder", "task_of"]
