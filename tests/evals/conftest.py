"""Tasks in a folder of the test's own, run on the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.evals.evaluate import Asked, Evaluated, evaluate
from llmbatch.evals.task import Task, load_task


class Tasks:
    """Makes tasks and runs them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, rows: list[Any], name: str = "rows.jsonl") -> Path:
        path = self.path / name
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def file(self, called: str = "task.yaml", /, **keys: Any) -> Path:
        """A task file: answers are compared with the field ``answer``, unless ``keys`` say otherwise; None leaves one out."""
        data: dict[str, Any] = {
            "name": "sums",
            "dataset": {"path": "./rows.jsonl"},
            "prompt": "{{ question }}",
            "references": "answer",
            "metrics": ["exact_match"],
        }
        data = {key: value for key, value in {**data, **keys}.items() if value is not None}
        path = self.path / called
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path

    def task(self, **keys: Any) -> Task:
        found = load_task(str(self.file(**keys)))
        assert isinstance(found, Task)
        return found

    def engine(self, script: Mapping[str, Any]) -> dict[str, Any]:
        path = self.path / "script.yaml"
        path.write_text(yaml.safe_dump(dict(script)), encoding="utf-8")
        return {"name": "scripted", "script": str(path)}

    def run(self, task: Task, script: Mapping[str, Any] | None = None, output: str = "out", **asked: Any) -> Evaluated:
        settings = {"engine": self.engine(script or {}), **asked.pop("settings", {})}
        return evaluate(task, Asked("any", self.path / output, settings=settings, **asked))

    def examples(self, output: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / output / "examples.jsonl").read_bytes().splitlines()]

    def input(self, output: str = "out") -> list[Any]:
        return [json.loads(line) for line in (self.path / output / "input.jsonl").read_bytes().splitlines()]

    def scores(self, output: str = "out") -> bytes:
        return (self.path / output / "scores.json").read_bytes()

    def figure(self, metric: str, output: str = "out") -> Any:
        return json.loads(self.scores(output))["overall"]["figures"][metric]["value"]


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


SUMS = [
    {"id": f"q{n}", "question": f"{n} + 1", "answer": str(n + 1), "topic": "odd" if n % 2 else "even"}
    for n in range(40)
]


@pytest.fixture
def sums(tasks: Tasks) -> Tasks:
    """Forty rows."""
    tasks.rows(SUMS)
    return tasks
