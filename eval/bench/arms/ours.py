"""llmbatch: ``run_job`` with an engine that is kept between repetitions, a fresh run folder for each; its fsyncs included."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import shapes

from arms.worker import Task, serve
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.job.job import Job, job_from
from llmbatch.runs.session import run_job


class Ours:
    def __init__(self, settings: dict[str, Any]) -> None:
        args = {**settings["engine"], **settings.get("args", {})}
        self._engine = {"args": args, **settings.get("job_engine", {})}
        self._keeper = EngineKeeper()

    def job(self, task: Task) -> Job:
        """Answers are not tried again, so that every arm does the same work."""
        prompt = shapes.SHAPES[task.shape].prompt
        return job_from(
            {
                "model": "demo",
                "input": str(task.source),
                "output": str(task.target / "run"),
                "engine": self._engine,
                "retry": {"max_attempts": 1},
                **({"prompt": str(shapes.DEMO / "prompts" / f"{prompt}.yaml")} if prompt else {}),
            }
        )

    def run(self, task: Task) -> Mapping[str, Any]:
        report = run_job(self.job(task), make=self._keeper.make).report
        tokens, session = report["tokens"], report["sessions"][-1]
        return {
            "answers": "run/results.jsonl",
            "hit_rate": tokens["cache_hit_rate"],
            "idle_share": session["idle_share"],
            "seconds_by_report": session["seconds"],
            "by_status": {status: count for status, count in report["rows"]["by_status"].items() if count},
            "folded": report["rows"]["folded"],
            "engine": report["engine"],
            "notes": [note["message"] for note in report["notes"]],
        }

    def reset(self) -> None:
        """The kept engine's prefix cache; there is no other way in, and a user has no need of one."""
        with contextlib.suppress(AttributeError):  # not started yet
            self._keeper._engine._llm.reset_prefix_cache()  # type: ignore[union-attr]

    def close(self) -> None:
        self._keeper.close()


if __name__ == "__main__":
    serve(Ours)
