"""A task and a model in; a run folder with the scores of the model on the task out.

The folder is one like any other: the same call goes on with it, and what is there is not asked again. It has besides

    task.yaml        the task as it was, with all of it resolved
    examples.jsonl   every row, with its references, what was read from its output, and what each metric makes of it
    scores.json      the figures with their intervals

The last two are made of the records alone, whenever the run is finished: the same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.digest import short_digest
from llmbatch.core.errors import FolderError, JobError, PromptError, SourceError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.core.notebook import table
from llmbatch.engines.base import EngineFactory
from llmbatch.engines.kinds import make_engine
from llmbatch.evals.base import Metric
from llmbatch.evals.examples import EXAMPLES
from llmbatch.evals.job import PROMPT, job_of_task, prompt_file
from llmbatch.evals.outcome import Outcomes, examples_of, read_lines
from llmbatch.evals.page import write_scored_page
from llmbatch.evals.plot import figure_words
from llmbatch.evals.rows import Rows, fingerprint
from llmbatch.evals.sandbox import UNISOLATED, can_isolate
from llmbatch.evals.scores import SCORES, Scored, Scores, score, scores_to_dict
from llmbatch.evals.sequential import sequence_for
from llmbatch.evals.task import Task, task_from
from llmbatch.evals.until import Until, UntilNarrow, decided
from llmbatch.folder.folder import RESULTS, RunFolder
from llmbatch.folder.input_copy import KEPT, keep
from llmbatch.folder.records import part_lines
from llmbatch.job.file import job_text
from llmbatch.job.job import Job, job_of
from llmbatch.job.run_settings import RunSettings
from llmbatch.job.swept import recipe_of
from llmbatch.prompt.document import read_document
from llmbatch.report.summary import headline
from llmbatch.runs.brakes import Stop
from llmbatch.runs.pacing import Slots
from llmbatch.runs.session import RunResult, run_job
from llmbatch.sinks.upload import upload_more

TASK = "task.yaml"
FACTS = "evaluation.json"


class Asked(NamedTuple):
    """How a task is run. ``data`` is a local copy of its data set; ``settings`` are further sections of the job.

    ``until`` ends the run once the interval of the first metric reaches no further than this to either side; rows are then
    shuffled, with the seed 0 where none is given.
    """

    model: str
    output: Path
    data: Path | None = None
    limit: int | None = None
    shuffle_seed: int | None = None
    until: float | None = None
    allow_code: bool = False
    settings: Mapping[str, Any] = {}

    @property
    def order(self) -> int | None:
        """The seed that rows are shuffled with."""
        return 0 if self.shuffle_seed is None and self.until is not None else self.shuffle_seed


class Evaluated(NamedTuple):
    """A task's run and its scores; None where it did not finish."""

    result: RunResult
    scores: Scores | None

    def __repr__(self) -> str:
        return f"Evaluated({headline(self.result.report)!r} in {str(self.result.folder)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: how it ended, and each figure with its interval."""
        said = f"<div><b>{escape(headline(self.result.report))}</b> in {escape(str(self.result.folder))}</div>"
        figures = {} if self.scores is None else self.scores.overall.figures
        return said + table([(escape(name), escape(figure_words(each))) for name, each in figures.items()])


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
    metrics = task.metrics_made(allow_code=asked.allow_code)
    if any(metric.kind.runs_code for metric in metrics) and not can_isolate():
        for watcher in watchers:
            watcher(Note("warning", UNISOLATED))
    if asked.until is not None:
        sequence_for(metrics[0], asked.until)
    job = _job(task, asked)
    facts = _prepare(task, job, asked, watchers)
    until = _until(metrics, facts)

    def pace(run: RunSettings, slots: Slots) -> UntilNarrow:
        assert until is not None  # noqa: S101 - for the type checker
        return UntilNarrow(until, Outcomes(asked.output, task).example, run, slots)

    again = _is_part(asked.output, asked.limit)
    result = run_job(job, watchers, make=make, stop=stop, pace=None if until is None else pace, again=again)
    if result.outcome != "finished":
        return Evaluated(result, None)
    scores = score_folder(asked.output, allow_code=asked.allow_code)
    if job.run.page:
        write_scored_page(asked.output, result.report)

    def say(message: str) -> None:
        for watcher in watchers:
            watcher(Note("info", message))

    upload_more(job.sinks, asked.output, [asked.output / EXAMPLES, asked.output / SCORES], say)
    return Evaluated(result, scores)


def score_folder(folder: Path, *, allow_code: bool = False) -> Scores:
    """Write the scores of a finished run anew, from its records. Raises ``FolderError`` where it is no run of a task."""
    task = task_of(folder)
    job = job_of(folder)
    metrics = task.metrics_made(allow_code=allow_code)
    rows = (line for line in read_lines(folder) if isinstance(line, dict))
    scored = Scored(task.name, digest_of(task), fingerprint(rows), job.model)
    examples = examples_of(folder, task)
    until = _until(metrics, _facts(folder))
    if until is None:
        return score(examples, metrics, scored, folder)
    scores = _with_interval(score(decided(until, examples), metrics, scored, folder), until)
    atomic_write(folder / SCORES, json.dumps(scores_to_dict(scores), ensure_ascii=False, indent=1).encode() + b"\n")
    return scores


def _with_interval(scores: Scores, until: Until) -> Scores:
    """The scores with the interval that may be looked at after every row, as it was."""
    name, interval = scores.metrics[0].name, until.sequence.interval
    figure = scores.overall.figures[name]._replace(low=interval.low, high=interval.high, method=interval.method)
    return scores._replace(overall=scores.overall._replace(figures={**scores.overall.figures, name: figure}))


def _until(metrics: Sequence[Metric], facts: Mapping[str, Any]) -> Until | None:
    half = facts.get("until")
    if half is None:
        return None
    return Until(metrics[0], sequence_for(metrics[0], half, largest_cluster=facts["largest_cluster"]))


def _facts(folder: Path) -> dict[str, Any]:
    """How the rows of a run were chosen. Raises ``FolderError``."""
    path = folder / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; the same llmbatch eval again writes it anew") from error
    return facts


def _is_part(folder: Path, limit: int | None) -> bool:
    """Whether results are there and are not all that is asked for, as a run ended before its input did."""
    if not (folder / RESULTS).exists():
        return False
    there = sum(1 for _ in part_lines([folder / RESULTS]))
    rows = sum(1 for _ in read_lines(folder))
    return there < (rows if limit is None else min(rows, limit))


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


def digest_of(task: Task) -> str:
    """Of what decides the questions and how answers are read. How they are asked, and how they are scored, may differ."""
    data = task.data()
    decides = {key: data.get(key) for key in ("ask", "prepare", "fields", "choices", "references", "read")}
    decides["dataset"] = {key: data["dataset"].get(key) for key in ("config", "split")}
    return short_digest(json.dumps(decides, sort_keys=True))


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


def _prepare(task: Task, job: Job, asked: Asked, watchers: Sequence[Watcher]) -> dict[str, Any]:
    """Write the rows that the run reads, and the task, into its folder, or see that they are those that are there.

    Returns how the rows were chosen, which is written there too.
    """
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
            if not _has(asked.output / TASK, text) or not (asked.output / FACTS).exists():
                raise
            for watcher in watchers:
                watcher(Note("warning", f"{error}. The run goes on with the rows that it has in {asked.output / KEPT}"))
            facts = {**_facts(asked.output), "until": asked.until}
        else:
            if folder.manifest is None:  # no run has begun, so the rows that an earlier call left bind nobody
                (asked.output / KEPT).unlink(missing_ok=True)
            keep(folder, rows.lines(asked.order), extend=False, check=_see_rows, refusal=_refusal(asked.output))
            atomic_write(asked.output / TASK, text)
            facts = {"shuffle_seed": asked.order, "largest_cluster": rows.largest_cluster, "until": asked.until}
        atomic_write(asked.output / FACTS, json.dumps(facts).encode() + b"\n")
        return facts
    finally:
        folder.close()


def _refusal(output: Path) -> Callable[[bool], JobError]:
    return lambda _grown: JobError(
        f"{output}: holds a run on other rows: of another task or data set, with other examples, or shuffled otherwise; give "
        "another output to begin anew"
    )


def _see_rows(path: Path) -> None:
    if not path.stat().st_size:
        raise SourceError("there is no row in the data set")


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


__all__ = ["TASK", "Asked", "Evaluated", "digest_of", "evaluate", "score_folder", "task_of"]
