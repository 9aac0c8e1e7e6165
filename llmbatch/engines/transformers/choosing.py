"""The scores of a step's rows in; out the same, with each row's own settings applied. Where one is drawn, only that one is left.

With a seed a row draws by a generator of its own, in the way in which the library draws: so its tokens are those that the library
gives to that prompt alone after ``torch.manual_seed``, in whatever batch it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llmbatch.engines.transformers.rows import Row
from llmbatch.engines.transformers.sampling import Setting


def choose(rows: Sequence[Row | None], scores: Any) -> Any:
    """Scores of shape (rows, vocabulary); ``None`` stands for a place whose token nobody wants."""
    by_setting: dict[int, tuple[Setting, list[int]]] = {}
    for i, row in enumerate(rows):
        if row is not None and row.finish_reason is None and row.setting.acts:
            by_setting.setdefault(id(row.setting), (row.setting, []))[1].append(i)
    if not by_setting:
        return scores
    raw, scores = scores, scores.clone()
    for setting, places in by_setting.values():
        theirs = [row for i in places if (row := rows[i]) is not None]
        if setting.samples or setting.shapers:
            part = raw[places]
            for shape in setting.shapers:
                part = shape(part, theirs)
            scores[places] = _drawn(part, theirs) if setting.samples else part
        if setting.logprobs is not None:
            _note(raw[places], scores[places], theirs, setting.logprobs)
    return scores


def _drawn(scores: Any, rows: Sequence[Row]) -> Any:
    import torch

    probabilities = torch.nn.functional.softmax(scores, dim=-1)
    drawn = [
        torch.multinomial(probabilities[i : i + 1], num_samples=1, generator=row.generator)
        for i, row in enumerate(rows)
    ]
    chosen = torch.cat(drawn)
    return scores.new_full(scores.shape, -math.inf).scatter_(1, chosen, 0.0)


def _note(raw: Any, scores: Any, rows: Sequence[Row], count: int) -> None:
    """Log-probabilities as the model gives them, before temperature and the like, as vLLM's are."""
    logprobs = raw.float().log_softmax(dim=-1)
    chosen = scores.argmax(dim=-1, keepdim=True)
    own = logprobs.gather(1, chosen)
    best = logprobs.topk(logprobs.shape[1] if count < 0 else min(count, logprobs.shape[1]), dim=-1)
    lists = zip(
        rows, chosen[:, 0].tolist(), own[:, 0].tolist(), best.indices.tolist(), best.values.tolist(), strict=True
    )
    for row, *noted in lists:
        row.note(*noted)
