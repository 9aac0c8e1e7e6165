"""Token ids in; the numbers that the scripted engine gives for them out: the same for the same ids, in every process.

A vector follows from a digest of the ids, and so do the probabilities of classes. The score of a pair is the share of words that
its two texts have in common, so that a person can tell which document should come first.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from hashlib import shake_256

from llmbatch.core.types import Pooling, Request
from llmbatch.engines.scripted.script import Script


def numbers_of(request: Request, pooling: Pooling, script: Script) -> array[float]:
    """The numbers that a request asks for."""
    if pooling.task == "pairs":
        return _score(request)
    count = len(script.classes) if pooling.task == "classify" else pooling.dimensions or script.dimensions
    return _drawn([*(request.token_ids or ()), *request.target_ids], count, pooling)


def given(answer: str) -> array[float] | None:
    """The numbers that a script's rule gives: a JSON list, in which NaN may be. None where it is none."""
    try:
        return array("f", json.loads(answer))
    except (ValueError, TypeError):
        return None


def _drawn(ids: Sequence[int], count: int, pooling: Pooling) -> array[float]:
    import numpy as np

    bits = shake_256(array("I", ids).tobytes()).digest(4 * count)
    numbers = np.frombuffer(bits, dtype="<u4").astype(np.float64) / 2**31 - 1
    if pooling.activation is not False:
        if pooling.task == "classify":
            numbers = np.exp(numbers)
        numbers /= numbers.sum() if pooling.task == "classify" else np.sqrt(np.square(numbers).sum())
    return array("f", numbers.astype(np.float32).tobytes())


def _score(request: Request) -> array[float]:
    first, second = (set(bytes(list(ids)).lower().split()) for ids in (request.token_ids or (), request.target_ids))
    return array("f", [len(first & second) / max(1, len(first | second))])


__all__ = ["given", "numbers_of"]
