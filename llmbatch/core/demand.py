"""A request's settings in -> what the planner must know of them out: how long it may answer, whether it repeats."""

from __future__ import annotations

from typing import NamedTuple

from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import Request, Sampling


class Demand(NamedTuple):
    """What one setting asks for. Lengths are in tokens of the answer."""

    least: int  # the engine goes on at least to here: min_tokens, or all of max_tokens where the end of text is ignored
    most: int | None  # max_tokens; None: as far as the context allows
    repeats: bool  # the same prompt gets the same answer: greedy, or an explicit seed


class Demands:
    """Reads each distinct setting once: requests share their ``Sampling`` object, so identity tells. One per window."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sampling, Demand]] = {}  # the object is kept so that its id stays its own

    def of(self, request: Request) -> Demand:
        if request.target is not None or request.pooling is not None:
            return _SCORE
        sampling = request.sampling
        known = self._known.get(id(sampling))
        if known is None:
            known = self._known[id(sampling)] = (sampling, _read(sampling))
        demand = known[1]
        if request.max_tokens is None and request.seed is None:
            return demand
        most = demand.most if request.max_tokens is None else request.max_tokens
        least = most if most is not None and demand.least == demand.most else demand.least
        return Demand(least if most is None else min(least, most), most, demand.repeats or request.seed is not None)


_SCORE = Demand(0, 0, repeats=True)  # of a continuation that is given, or of numbers: no answer, and nothing is drawn


def _read(sampling: Sampling) -> Demand:
    most: int | None = sampling.get("max_tokens")
    least: int = sampling.get("min_tokens") or 0
    if sampling.get("ignore_eos") and most is not None:
        least = most
    # Where no temperature is given it is the model's own default, which may not be greedy: only an explicit 0 counts.
    repeats = sampling.get("temperature") == 0 or sampling.get("seed") not in (None, NO_SEED)
    return Demand(least if most is None else min(least, most), most, repeats)
