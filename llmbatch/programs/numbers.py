"""An ask in; the same for numbers out. What the programs share that ask for numbers and not for answers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from operator import mul

from llmbatch.core.numbers import plain
from llmbatch.core.types import Failure, Pooling, PoolingTask, Prompt, Sampling
from llmbatch.programs.base import Ask

_NO_SAMPLING = Sampling()  # nothing is drawn


@lru_cache(maxsize=256)
def pooling_of(task: PoolingTask, dimensions: int | None = None, activation: bool | None = None) -> Pooling:
    """Equal ones are one object."""
    return Pooling(task, dimensions, activation)


def asking(ask: Ask | Failure, pooling: Pooling) -> Ask | Failure:
    """What is asked, for numbers. A vector has as many as its row says, where it says that."""
    if isinstance(ask, Failure):
        return ask
    if ask.pooling is not None and ask.pooling.dimensions is not None:
        pooling = pooling_of(pooling.task, ask.pooling.dimensions, pooling.activation)
    return replace(ask, pooling=pooling, sampling=_NO_SAMPLING, constraint=None, seed=None, samples=1)


def paired(first: Ask, second: Ask, pooling: Pooling) -> Ask | str:
    """Two texts that are asked about together, or what is wrong with them, in words. Where they are too long the second is cut."""
    if first.prompt.text is None or second.prompt.text is None:
        return "a pair is of two plain texts, and a prompt of the job makes a chat: give it as text"
    prompt = Prompt(text=first.prompt.text, pair=second.prompt.text)
    return replace(second, prompt=prompt, pooling=pooling, sampling=_NO_SAMPLING, constraint=None, seed=None, samples=1)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors, as a number of 32 bits; 0 where one of them has no length."""
    lengths = math.sqrt(_product(one, one) * _product(other, other))
    return plain(array("f", [_product(one, other) / lengths if lengths else 0.0]))[0]


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(map(mul, one, other))


__all__ = ["asking", "cosine", "paired", "pooling_of"]
