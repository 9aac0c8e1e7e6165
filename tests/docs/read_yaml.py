"""A block of YAML in; whether llmbatch would take it, as what it looks like: a job, a part of one, a prompt file, a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read(path: Path) -> None:
    """Raises what is wrong with it."""
    from llmbatch.cli.main import main

    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise TypeError(f"{path}: is no mapping")
    if "metrics" in data or "tasks" in data:
        from llmbatch.evals.task import load_task

        load_task(str(path))
    elif "messages" in data or "text" in data or "messages_from" in data:
        main(["prompts", "check", str(path)])
    elif {"model", "input", "output"} <= data.keys():
        main(["run", str(path)])
    elif "rules" in data:
        from llmbatch.engines.scripted.script import Script

        Script.model_validate(data)
    elif data.keys() <= _sections():
        _part_of_a_job(data)
    else:
        raise ValueError(f"{path}: is neither a job, nor a prompt file, nor a task")


def _sections() -> set[str]:
    from llmbatch.job.job import Job

    return set(Job.model_fields)


def _part_of_a_job(data: dict[str, Any]) -> None:
    from llmbatch.job.job import job_from
    from llmbatch.job.swept import recipe_of

    whole = {"model": "demo", "prompt": "{{ text }}", "input": "rows.jsonl", "output": "out", **data}
    recipe_of(job_from(whole))
