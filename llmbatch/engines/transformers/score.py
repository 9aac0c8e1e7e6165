"""Prompts with given continuations in; the likelihood of each out, by one forward pass for as many as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

from llmbatch.core.types import Request, Score
from llmbatch.engines.transformers.loading import Loaded

_LOGITS_BYTES = 1 << 29  # of one pass
_BYTES_OF_LOGIT = 4


def batches(requests: Sequence[Request], loaded: Loaded) -> Iterator[list[Request]]:
    """Requests that go in one pass, as padding makes them equally long."""
    batch: list[Request] = []
    longest = 0
    for request in requests:
        longest = max(longest, _length(request))
        if batch and (len(batch) + 1) * longest * loaded.vocabulary * _BYTES_OF_LOGIT > _LOGITS_BYTES:
            yield batch
            batch, longest = [], _length(request)
        batch.append(request)
    if batch:
        yield batch


def score(loaded: Loaded, batch: Sequence[Request]) -> list[Score]:
    """Of each request. The prompts are padded in front, so that the continuations stand at the end."""
    import torch

    model, device = loaded.model, loaded.device
    rows = [[*(request.token_ids or ()), *request.target_ids] for request in batch]
    longest = max(map(len, rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    keep = max(len(request.target_ids) for request in batch) + 1
    given: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    names = signature(model.forward).parameters
    if "position_ids" in names:
        given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0).to(device)
    if "logits_to_keep" in names:
        given["logits_to_keep"] = keep
    with torch.no_grad():
        logits = model(**given, use_cache=False).logits[:, -keep:]
    return [_score(logits[i], request.target_ids) for i, request in enumerate(batch)]


def _score(logits: Any, target: Sequence[int]) -> Score:
    """``logits`` of the last places, the last of which is behind the target."""
    import torch

    rows = logits[-len(target) - 1 : -1].float()
    wanted = torch.tensor(target, device=rows.device)
    logprobs = rows.log_softmax(dim=-1).gather(1, wanted[:, None])
    return Score(float(logprobs.sum()), bool((rows.argmax(dim=-1) == wanted).all()), len(target))


def _length(request: Request) -> int:
    return len(request.token_ids or ()) + len(request.target_ids)
