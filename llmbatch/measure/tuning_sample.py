"""A job and its source in; a sample of its requests for the tuner out: of all lengths, and in pieces that share what rows share."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Request
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.job.job import Job
from llmbatch.job.prepare import Preparer, capacity_of
from llmbatch.job.swept import recipe_of
from llmbatch.measure.speed import spread
from llmbatch.sources.base import Source

SEED = 0
_POOL = 4  # times as many rows are read as are taken
_PIECE = 32  # requests that follow each other in the run's own order: so a prefix is shared in the sample as in the run


def sample_requests(job: Job, source: Source, most: int, engine: Engine, info: EngineInfo) -> list[Request]:
    """At most so many requests of the job's first rows, planned as the run will plan them, then drawn by length."""
    # a recipe of its own: that of the run is in use in another thread
    prepare = Preparer(recipe_of(job), job.plan, lambda prompts: engine.tokenize(prompts), lambda: info.context_length)
    asked: list[Request] = []
    with contextlib.suppress(ReadError):  # the run itself says it
        for row in itertools.islice(source.rows(), _POOL * most):
            asked.extend(prepare.begin(row).start())
    ready, _ = prepare.tokenized(asked)
    plan = prepare.plan(ready, capacity_of(info), last=False)
    return drawn([ready[position] for position in plan.order], most)


def drawn(planned: Sequence[Request], most: int) -> list[Request]:
    """At most so many of the requests, whole pieces of their order; every beginning of what comes out has all lengths.

    Pieces are sorted by their mean length, and of each stretch of equal size one is drawn: the same for the same requests.
    """
    pieces = [planned[start : start + _PIECE] for start in range(0, len(planned), _PIECE)]
    wanted = max(1, most // _PIECE)
    if len(pieces) > wanted:
        random = Random(SEED)  # noqa: S311 - a sample, not a secret
        pieces.sort(key=_mean_length)
        edges = [number * len(pieces) // wanted for number in range(wanted + 1)]
        pieces = [pieces[random.randrange(low, high)] for low, high in itertools.pairwise(edges)]
    pieces = spread(pieces, _mean_length)
    return list(itertools.chain.from_iterable(pieces))[:most]


def lengths(requests: Sequence[Request]) -> tuple[int, int, int]:
    """Of the prompts, in tokens: the shortest, the median, the longest."""
    found = sorted(_lengths(requests)) or [0]
    return found[0], found[len(found) // 2], found[-1]


def _lengths(requests: Iterable[Request]) -> Iterator[int]:
    return (len(request.token_ids or ()) for request in requests)


def _mean_length(requests: Sequence[Request]) -> float:
    return sum(_lengths(requests)) / len(requests)


__all__ = ["SEED", "drawn", "lengths", "sample_requests"]
