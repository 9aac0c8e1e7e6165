"""Ray Data LLM: ``read_json``, vLLM's processor with Ray's defaults, ``write_json``; on CPUs, where Ray asks for GPUs by default.

Each pipeline starts its engine anew: Ray Data has no way to keep one. Its time at work is counted from the moment the first
request went into the engine, which leaves reading and tokenizing out too, to the moment the last file was written.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray  # type: ignore[import-not-found, unused-ignore]
import shapes
from ray.data.llm import (  # type: ignore[import-not-found, unused-ignore]
    build_processor,
    vLLMEngineProcessorConfig,
)

from arms.worker import Task, serve

# Ray's workers stand back behind whatever else computes (niceness 15): beside other work the engine's start takes for ever. In a
# benchmark nothing else computes, and this makes no difference.
os.environ.setdefault("RAY_worker_niceness", "0")
_LOGICAL_CPUS = 8  # what Ray schedules by, not how much runs: each of its stages wants one, and the engine one


class RayData:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = vLLMEngineProcessorConfig(
            model_source=str(shapes.MODEL),
            engine_kwargs=dict(settings["engine"]),
            placement_group_config={"bundles": [{"CPU": 1}]},
            log_engine_metrics=False,
        )
        self._progress = settings.get(
            "progress"
        )  # a file that grows by a byte with each answer, for who kills it half-way

    def run(self, task: Task) -> Mapping[str, Any]:
        ray.init(
            num_cpus=_LOGICAL_CPUS,
            include_dashboard=False,
            logging_level=logging.WARNING,
            object_store_memory=1 << 30,
            runtime_env={"env_vars": {"PYTHONPATH": str(shapes.HERE)}},
        )
        try:
            return self._pipeline(task)
        finally:
            ray.shutdown()  # its idle processes would compute beside the other arms

    def _pipeline(self, task: Task) -> Mapping[str, Any]:
        document = shapes.prompt_file(str(shapes.SHAPES[task.shape].prompt))
        messages, sampling = document["messages"], dict(document["sampling"])
        if schema := document.get("output", {}).get("schema"):
            sampling["structured_outputs"] = {"json": json.dumps(schema)}

        def prepare(row: dict[str, Any]) -> dict[str, Any]:
            chat = shapes.fill(messages, {k: v for k, v in row.items() if k != "id"})
            return {"id": row["id"], "messages": chat, "sampling_params": sampling}

        progress = self._progress

        def finish(row: dict[str, Any]) -> dict[str, Any]:
            if progress is not None:
                with Path(progress).open("ab") as file:
                    file.write(b".")
            return {"id": row["id"], "text": row["generated_text"], "began": time.time() - row["time_taken_llm"]}

        process = build_processor(self._config, preprocess=prepare, postprocess=finish)
        rows = process(ray.data.read_json(str(task.source)))
        answers = task.target / "answers"
        rows.write_json(str(answers))
        files = list(answers.iterdir())
        began = min(
            json.loads(line)["began"] for file in files for line in file.read_text(encoding="utf-8").splitlines()
        )
        return {"answers": "answers", "seconds_at_work": max(file.stat().st_mtime for file in files) - began}

    def reset(self) -> None:
        """The next pipeline has a new engine."""

    def close(self) -> None:
        """Nothing of it is left."""


if __name__ == "__main__":
    serve(RayData)
