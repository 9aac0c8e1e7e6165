"""The demo: a small corpus that comes with llmbatch, run for real with the model that comes with it, and scored against the truth.

Two jobs: numbers are translated, orders are extracted as JSON under a schema. Some lines are broken on purpose; each of them gets
its record too, and only rows that have a right answer are scored. How model and corpus were made: ``eval/demo_model`` in the
repository.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbatch.core.events import Watcher
from llmbatch.engines import DEFAULT_ENGINE
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.kinds import kind_of
from llmbatch.folder.folder import RESULTS
from llmbatch.folder.records import parse, part_lines
from llmbatch.job.job import Job, job_from
from llmbatch.runs.session import RunResult, run_job

HERE = Path(__file__).parent
JOBS = {"numbers": "translate-number", "orders": "extract-order"}  # corpus -> prompt
TASKS = {
    "numbers": "numbers spelled out in English, translated",
    "orders": "orders in a sentence, extracted as JSON under a schema",
}


@dataclass(frozen=True, slots=True)
class Score:
    """How many of the rows that have a known answer got exactly it."""

    name: str
    right: int
    rows: int
    result: RunResult

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / self.rows if self.rows else 0.0


def demo_job(name: str, output: Path, engine: str = DEFAULT_ENGINE) -> Job:
    """The job of one of the demo's corpora, with the run folder ``output/name``."""
    return job_from(
        {
            "model": "demo",
            "prompt": str(HERE / "prompts" / f"{JOBS[name]}.yaml"),
            "input": str(HERE / "corpus" / f"{name}.jsonl"),
            "output": output / name,
            "sinks": {"keep": ("text",)},
            "engine": {"name": engine, "args": kind_of(engine).quick},
        }
    )


def run_demo(output: Path, watchers: Sequence[Watcher] = (), engine: str = DEFAULT_ENGINE) -> list[Score]:
    """Run both jobs and score them. Raises as ``run_job`` does."""
    with EngineKeeper() as keeper:  # one start for both
        return [score(name, run_job(demo_job(name, output, engine), watchers, make=keeper.make)) for name in JOBS]


def score(name: str, result: RunResult) -> Score:
    """Hold the results of a demo job against its truth file. A run that was stopped is scored as far as it came: not at all."""
    truth = {row["id"]: row["output"] for row in _lines(HERE / "corpus" / f"{name}.truth.jsonl")}
    rows, right = len(truth), 0
    results = result.folder / RESULTS
    for record in map(parse, part_lines([results])) if results.exists() else ():
        expected = truth.pop(record["id"], None)  # of two rows with one id the first is meant
        if expected is not None:
            right += record["status"] == "ok" and record["output"] == _as_output(expected, record["output"])
    return Score(name, right, rows, result)


def _as_output(expected: str, output: Any) -> Any:
    return expected if isinstance(output, str) else json.loads(expected)


def _lines(path: Path) -> Sequence[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


__all__ = ["JOBS", "TASKS", "Score", "demo_job", "run_demo", "score"]
