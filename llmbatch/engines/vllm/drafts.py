"""A started ``vllm.LLM`` that speculates in; how many tokens it guessed, and how many were right, by its own metrics, out."""

from __future__ import annotations

import time
from typing import Any

from llmbatch.engines.base import Drafts

_SECONDS = 0.5  # between two readings: vLLM puts all of its metrics together for each
_NAMES = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")


class DraftCounter:
    """Reads the counts now and then; keeps the last ones once the engine is gone."""

    def __init__(self) -> None:
        self._read_at = 0.0
        self._last = Drafts()

    def read(self, llm: Any) -> Drafts:
        """The counts since the engine's start; ``llm`` is None once it was stopped."""
        now = time.monotonic()
        if llm is not None and now - self._read_at >= _SECONDS:
            found = dict.fromkeys(_NAMES, 0)
            for metric in llm.get_metrics():
                name = metric.name.removeprefix("vllm:spec_decode_").removesuffix("_total")
                if name in found:
                    found[name] += int(metric.value)
            self._read_at, self._last = now, Drafts(*found.values())
        return self._last
