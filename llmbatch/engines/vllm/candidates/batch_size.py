"""Twice and half of each batch size that the job leaves to vLLM. Answers stay what they are, but for the order of sums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings

_LEAST_SEQS = 2
_LEAST_TOKENS = 512


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    info = around.info
    context = (info.context_length or 0) if settings.args.get("enable_chunked_prefill") is False else 0
    tokens = info.max_num_batched_tokens
    for name, size, least in (
        ("max_num_seqs", info.max_num_seqs, _LEAST_SEQS),
        ("max_num_batched_tokens", tokens, max(_LEAST_TOKENS, info.max_num_seqs, context)),
    ):
        if isinstance(size, int) and name not in settings.args:
            for other in (2 * size, size // 2):
                if other >= least:
                    args = {**_fixed(settings, name, tokens), name: other}
                    yield Candidate(f"{name}={other}", {"args": args})


def _fixed(settings: EngineSettings, name: str, tokens: int | None) -> dict[str, Any]:
    """The job's own arguments; vLLM may derive the one size from the other, so the one that is not tried is held fixed."""
    hold = {"max_num_batched_tokens": tokens} if name == "max_num_seqs" and tokens is not None else {}
    return {**hold, **settings.args}
