"""Pairs of measurements in, each of two settings in one round; how many times as fast the one is, with bounds, out.

And how often answers agree, with the least that a sample of that size tells. All bounds are those of 95% confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch.measure.speed import Interval, Measured

CONFIDENCE = 0.95
_NORMAL = 1.96
_ONE_SIDED = 1.645
# of Student's distribution, for so many rounds less one; from there on close to the normal one
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)

Pair = tuple[Measured, Measured]
"""Of one round: the candidate's measurement, and the default's."""


class Agreement(NamedTuple):
    """Of the greedy answers that were compared, those that are the same to the last character."""

    equal: int = 0
    compared: int = 0

    @property
    def share(self) -> float | None:
        return self.equal / self.compared if self.compared else None

    @property
    def low(self) -> float:
        """At least so many of all answers agree (Wilson's bound, one-sided)."""
        if not self.compared:
            return 0.0
        n, share, z2 = self.compared, self.equal / self.compared, _ONE_SIDED**2
        middle, wide = share + z2 / (2 * n), _ONE_SIDED * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
        return max(0.0, (middle - wide) / (1 + z2 / n))

    def as_dict(self) -> dict[str, Any]:
        return {"equal": self.equal, "compared": self.compared, "share": self.share, "low": self.low}


def ratio_in(pair: Pair) -> float | None:
    """How many times as fast the candidate was in one round; None where one of the two was not measured."""
    ours, theirs = pair[0].tokens_per_second, pair[1].tokens_per_second
    return ours / theirs if ours > 0 and theirs > 0 else None


def ratio_of(pairs: Sequence[Pair]) -> Interval | None:
    """The ratio over all rounds (a geometric mean), and its bounds; None where too little was measured to tell any.

    Two kinds of chance are held apart: what varies within a round, known from its slices of time, and what varies between rounds,
    such as another start of the engine on a machine that became slower. The larger of the two counts. Where it is that between
    rounds, few rounds tell little of it, and Student's factors say so.
    """
    logs = [math.log(ratio) for pair in pairs if (ratio := ratio_in(pair)) is not None]
    if not logs:
        return None
    count, mean = len(logs), math.fsum(logs) / len(logs)
    between = math.fsum((each - mean) ** 2 for each in logs) / (count - 1) if count > 1 else math.inf
    noises = [math.hypot(ours.noise, theirs.noise) for ours, theirs in pairs if ratio_in((ours, theirs)) is not None]
    within = math.fsum(noise**2 for noise in noises) / count
    if math.isinf(within) and count == 1:
        return None
    if math.isinf(within) or (count > 1 and between > within):
        half = _STUDENT[min(count - 1, len(_STUDENT)) - 1] * math.sqrt(between / count)
    else:
        half = _NORMAL * math.sqrt(within / count)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


__all__ = ["CONFIDENCE", "Agreement", "Pair", "ratio_in", "ratio_of"]
