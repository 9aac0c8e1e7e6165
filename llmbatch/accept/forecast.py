"""What became of candidates so far in; how many are to be asked, so that enough are accepted and hardly any in vain, out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

HALF_LIFE = 4096  # candidates: a source may change, and what came long ago counts for less
_KEEP = 0.5 ** (1 / HALF_LIFE)
_MOST = 1 << 40


@dataclass(slots=True)
class Share:
    """The share of the good ones, from those that were seen.

    Before any was seen it is 1, so that no more is asked than is needed at least.
    """

    good: float = 0.0
    seen: float = 0.0

    def add(self, good: bool) -> None:
        self.good = _KEEP * self.good + good
        self.seen = _KEEP * self.seen + 1

    @property
    def mean(self) -> float:
        return (self.good + 1) / (self.seen + 1)

    @property
    def variance(self) -> float:
        """Of the mean: how well it is known."""
        return self.mean * (1 - self.mean) / (self.seen + 1)


class Forecast(NamedTuple):
    """Of ``passing`` candidates it is known that they meet the conditions; of such the share ``kept`` is accepted in the end.

    Of candidates of which nothing is known yet, the share ``passes`` meets the conditions.
    """

    passing: int
    passes: Share
    kept: Share

    def candidates(self, needed: int, luck: float = 0.0, doubt: float = 0.0) -> int:
        """The most candidates of which nothing is known that there can be, so that no more than ``needed`` are accepted.

        That is if the draw of them is ``luck`` standard deviations better than on average (below 0: worse), and the shares are
        ``doubt`` standard errors higher than they seem.
        """
        low, high = 0, 1
        while high < _MOST and self._accepted(high, luck, doubt) <= needed:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self._accepted(middle, luck, doubt) <= needed:
                low = middle
            else:
                high = middle
        return low

    def _accepted(self, candidates: int, luck: float, doubt: float) -> float:
        kept = self.kept.mean
        share = self.passes.mean * kept
        mean = self.passing * kept + candidates * share
        spread = self.passing * kept * (1 - kept) + candidates * share * (1 - share)
        error = math.sqrt(self.passes.variance * kept**2 + self.kept.variance * self.passes.mean**2)
        return mean + luck * math.sqrt(spread) + doubt * error * candidates


__all__ = ["HALF_LIFE", "Forecast", "Share"]
