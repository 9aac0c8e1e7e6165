"""transformers ``generate``: batches of equal size in input order, padded on the left, greedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shapes

from arms.worker import Task, serve, write_answers

BATCH = 128


class Generate:
    def __init__(self, settings: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(shapes.MODEL, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(shapes.MODEL, dtype=settings.get("dtype", "auto"))
        self._model.eval()

    def run(self, task: Task) -> Mapping[str, Any]:
        import torch

        asks = list(shapes.read(task.shape, task.source))
        lines = []
        with torch.inference_mode():
            for start in range(0, len(asks), BATCH):
                batch = asks[start : start + BATCH]
                inputs = self._tokenizer.apply_chat_template(
                    [ask.messages for ask in batch],
                    add_generation_prompt=True,
                    padding=True,
                    return_tensors="pt",
                    return_dict=True,
                )
                most = max(ask.sampling["max_tokens"] for ask in batch)
                ids = self._model.generate(**inputs, do_sample=False, max_new_tokens=most)
                texts = self._tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                lines += [{"id": ask.id, "text": text} for ask, text in zip(batch, texts, strict=True)]
        write_answers(task.target, lines)
        return {"answers": "answers.jsonl", "engine": {"dtype": str(self._model.dtype).removeprefix("torch.")}}

    def reset(self) -> None:
        """There is no cache that outlives a call."""

    def close(self) -> None:
        """Nothing is left open."""


if __name__ == "__main__":
    serve(Generate)
