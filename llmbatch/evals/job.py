"""A task and a model in; the job of an ordinary run folder out, so that resuming, limits, audit and all else work as ever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.merge import merged
from llmbatch.core.sandbox import used_variables
from llmbatch.engines.kinds import kind_of
from llmbatch.evals.rows import EXAMPLE
from llmbatch.evals.task import Task
from llmbatch.folder.input_copy import KEPT
from llmbatch.job.file import job_text
from llmbatch.job.job import Job, job_from
from llmbatch.model.tokenizer import load_tokenizer

PROMPT = "prompt.yaml"
_OF_THE_TASK = ("prompt", "input", "output", "program", "sweep", "accept")


def job_of_task(task: Task, model: str, output: Path, settings: Mapping[str, Any]) -> Job:
    """The job. ``settings`` are further sections, as of a job file, over the task's own: engine, sampling, run, ...

    Raises ``JobError`` for a section that the task decides.
    """
    for section in settings:
        if section in _OF_THE_TASK:
            raise JobError(
                f"{section}: the task says that; a run of a task can set engine, sampling, answer, retry, run, ..."
            )
    data: dict[str, Any] = {
        "model": model,
        "output": str(output),
        "input": {"path": str(output / KEPT), "format": "jsonl", "id_field": task.dataset.id_field or "id"},
        "prompt": _prompt(task, output),
        "program": _program(task),
        "sampling": dict(task.sampling),
        "retry": {"max_attempts": 1},  # the model's first answer is what is scored
    }
    if task.answer is not None:
        data["answer"] = task.answer
    if task.repeats > 1:  # of one repeat the record has what was cut off, of several it has not
        data["answer"] = {"allow_truncated": True, **data.get("answer", {})}
    data = merged(data, settings)
    if "n" in data["sampling"]:
        raise JobError("sampling.n: how often a row is asked is the task's to say, as repeats")
    if task.repeats > 1 and data["sampling"].get("temperature") == 0:
        raise JobError(f"sampling.temperature is 0, and the task's repeats are {task.repeats}: all would be the same")
    if task.ask == "perplexity":
        data["program"]["settings"]["start"] = _start(job_from(data))
    if task.repeats > 1:
        data["sampling"]["n"] = task.repeats
    return job_from(data)


def prompt_file(task: Task) -> bytes | None:
    """The file with the task's prompt of plain text, which lies in the run folder; None where it has a prompt of its own."""
    if task.text is None:
        return None
    variables = {name: {"type": "any"} for name in used_variables(task.text, task.name)}
    data = {
        "name": "text",
        "description": f"The prompt of the task {task.name}.",
        "variables": variables,
        "text": task.text,
    }
    return job_text(data, None, Task).encode()


def _start(job: Job) -> str:
    """The token that the model's texts begin with, for a tokenizer that puts none there itself."""
    kind = kind_of(job.engine.name)
    if not kind.packages:  # an engine that has no model
        return ""
    source, engine = kind.tokenizer(job.engine), job.engine
    hf = load_tokenizer(
        job.model_path,
        job.chat,
        tokenizer=source.name,
        revision=source.revision,
        trust_remote_code=engine.trust_remote_code,
    ).hf
    return str(hf.bos_token or hf.eos_token or "")


def _prompt(task: Task, output: Path) -> dict[str, Any]:
    if task.prompt is None:
        return {"path": str(output / PROMPT)}
    return task.prompt.model_dump(mode="json", exclude_defaults=True)


def _program(task: Task) -> dict[str, Any]:
    shots: dict[str, Any] = {}
    if task.few_shot.number:
        few = task.few_shot
        shots = {"shots": f"{EXAMPLE}.shots", "delimiter": task.between, "separator": few.separator, "fewer": few.fewer}
    if task.ask == "likelihood":
        settings = {"choices": f"{EXAMPLE}.choices", "by": task.by, "delimiter": task.between, **shots}
        return {"name": "score", "settings": settings}
    if task.ask == "perplexity":
        return {"name": "perplexity", "settings": {}}
    return {"name": "few_shot", "settings": shots} if shots else {"name": "single"}


__all__ = ["PROMPT", "job_of_task", "prompt_file"]
