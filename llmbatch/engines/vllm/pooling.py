"""Requests for numbers in; vLLM's ``PoolingParams`` for them, and of what vLLM then gives the numbers, out.

The same as ``LLM.embed``, ``LLM.classify`` and, for a cross-encoder, ``LLM.score`` do: what a pair's second text is told by goes
along as the place where it begins.
"""

from __future__ import annotations

import copy
import json
from array import array
from typing import Any

from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Pooling, Refusal, Request, Usage

_TASKS = {"embed": "embed", "classify": "classify", "pairs": "classify"}  # as vLLM calls them
_KEPT = 256  # distinct settings; a job that has more makes them anew


class Poolings:
    """The settings of one engine whose model gives numbers. ``can`` is what that is able to do."""

    def __init__(self, llm: Any) -> None:
        engine = llm.llm_engine
        self._model_config = engine.model_config
        tasks = set(engine.get_supported_tasks())
        task = getattr(llm, "pooling_task", None)  # of several tasks vLLM does one
        if task is not None:
            tasks &= {task}
        able = {name for name, theirs in _TASKS.items() if theirs in tasks}
        if getattr(self._model_config.hf_config, "num_labels", 0) != 1:
            able.discard("pairs")
        self.can = frozenset(able)
        names = getattr(self._model_config.hf_config, "id2label", None) or {}
        self._names = {int(number): str(name) for number, name in names.items()}
        self._classes: dict[int, str] = {}  # how many -> their names as JSON: one text for all answers
        self._made: dict[Pooling, Any] = {}

    def of(self, request: Request, pooling: Pooling) -> Any:
        """vLLM's parameters. Raises ``ValueError`` for what the model cannot do."""
        if pooling.task not in self.can:
            raise ValueError(
                f"the model cannot do {pooling.task}; it can do {', '.join(sorted(self.can)) or 'nothing'}"
            )
        made = self._made.get(pooling)
        if made is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            made = self._made[pooling] = self._make(pooling)
        if not request.target_ids:
            return made
        params = copy.copy(made)
        params.extra_kwargs = {"compressed_token_type_ids": len(request.token_ids or ())}
        return params

    def _make(self, pooling: Pooling) -> Any:
        from vllm import PoolingParams

        made = PoolingParams(
            task=_TASKS[pooling.task], dimensions=pooling.dimensions, use_activation=pooling.activation
        )
        made.verify(self._model_config)
        return made

    def outcome(self, request: Request, output: Any) -> Outcome:
        """The outcome of a request with vLLM's ``PoolingRequestOutput`` for it."""
        if (error := getattr(output, "error", None)) is not None:
            return Refusal(request.key, Failure(FailureKind.ENGINE, f"vLLM failed this request: {error}"))
        numbers = array("f", output.outputs.data.detach().float().cpu().reshape(-1).numpy().tobytes())
        usage = Usage(len(output.prompt_token_ids), 0, output.num_cached_tokens or 0)
        classes = request.pooling is not None and request.pooling.task == "classify"
        text = self._names_of(len(numbers)) if classes else ""
        return Completion(request.key, text, "stop", usage, numbers=numbers)

    def _names_of(self, count: int) -> str:
        if count not in self._classes:
            self._classes[count] = json.dumps([self._names.get(number, f"LABEL_{number}") for number in range(count)])
        return self._classes[count]
