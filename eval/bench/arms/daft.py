"""Daft: ``read_json``, its ``prompt`` function with the vLLM that it runs itself (``vllm-prefix-caching``), ``write_json``.

Each query starts its engine anew: Daft has no way to keep one. Its time at work is counted from the moment its engine was there.
That provider takes a prompt as one text and no system message, so a function of the query puts the chat together.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import daft  # type: ignore[import-not-found, unused-ignore]
import shapes
from daft.execution import vllm as daft_vllm  # type: ignore[import-not-found, unused-ignore]
from daft.functions import prompt  # type: ignore[import-not-found, unused-ignore]

from arms.worker import Task, serve


class Daft:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._engine = dict(settings["engine"])
        self._ready_at = 0.0
        start = daft_vllm.LocalVLLMExecutor.__init__

        @functools.wraps(start)
        def noted(*given: Any, **named: Any) -> None:
            start(*given, **named)
            self._ready_at = time.monotonic()

        daft_vllm.LocalVLLMExecutor.__init__ = noted

    def run(self, task: Task) -> Mapping[str, Any]:
        from transformers import AutoTokenizer
        from vllm import SamplingParams

        document = shapes.prompt_file(str(shapes.SHAPES[task.shape].prompt))
        tokenizer = AutoTokenizer.from_pretrained(shapes.MODEL)

        @daft.func
        def chat(row: dict[str, str]) -> str:
            messages = shapes.fill(document["messages"], row)
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

        rows = daft.read_json(str(task.source))
        fields = [daft.col(name) for name in rows.column_names if name != "id"]
        asked = rows.with_column("prompt", chat(daft.functions.to_struct(*fields)))
        answered = asked.with_column(
            "text",
            prompt(
                daft.col("prompt"), provider="vllm-prefix-caching", model=str(shapes.MODEL), gpus_per_actor=0,
                engine_args=self._engine, generate_args={"sampling_params": SamplingParams(**document["sampling"])},
            ),
        )  # fmt: skip
        answered.select("id", "text").write_json(str(task.target / "answers"))
        return {"answers": "answers", "seconds_at_work": time.monotonic() - self._ready_at}

    def reset(self) -> None:
        """The next query has a new engine."""

    def close(self) -> None:
        """Nothing of it is left."""


if __name__ == "__main__":
    serve(Daft)
