"""The lengths of the answers so far in -> the expected length of the next answer out.

An answer that was cut off says only that it is longer than its limit, so lengths are taken as censored observations:
the estimate is the restricted mean of their Kaplan-Meier curve, in logarithmic bins, E[min(length, limit)]. It grows
with the limit, and equals it as long as every answer was cut. Prompts of similar length share a curve, because in
translation or rewriting the answer is about as long as the text; a curve of few answers gives way to that of all.
"""

from __future__ import annotations

from bisect import bisect_right
from math import expm1

PRIOR_MEAN = 256.0  # tokens; before the first answer, lengths are taken as exponential with this mean
ENOUGH = 32  # observations from which prompts of one size have their own curve
_BINS_PER_DOUBLING = 8


def _edges() -> list[int]:
    edges, edge = [0], 1.0
    while edge < 2**20:
        if int(edge) > edges[-1]:
            edges.append(int(edge))
        edge *= 2 ** (1 / _BINS_PER_DOUBLING)
    return edges


_EDGES = _edges()  # bin i holds lengths from _EDGES[i] on, below _EDGES[i + 1]


class _Curve:
    """Counts of ended and of cut answers by length, and their restricted means, made when asked for."""

    def __init__(self) -> None:
        self.count = 0
        self._ended = [0] * len(_EDGES)
        self._tokens = [0] * len(_EDGES)  # of the ended ones together
        self._cut = [0] * len(_EDGES)
        self._made_at = -1
        # For each bin: the share of answers that go on beyond it, and E[min(length, lower edge)].
        self._made: tuple[list[float], list[float]] = ([], [])

    def add(self, bin_: int, length: int, cut: bool) -> None:
        if cut:
            self._cut[bin_] += 1
        else:
            self._ended[bin_] += 1
            self._tokens[bin_] += length
        self.count += 1

    def restricted_mean(self, limit: float) -> float:
        survival, area = self._curve()
        bin_ = bisect_right(_EDGES, limit) - 1
        return area[bin_] + (limit - _EDGES[bin_]) * survival[bin_]

    def quantile(self, share: float) -> int:
        for edge, survival in zip(_EDGES, self._curve()[0], strict=True):
            if survival <= 1.0 - share:
                return edge
        return _EDGES[-1]

    def _curve(self) -> tuple[list[float], list[float]]:
        # Within the first hundreds every answer counts; later a curve that is a hundredth old will do.
        if self._made_at >= 0 and self.count - self._made_at <= self.count // 100:
            return self._made
        at_risk, alive, mean = self.count, 1.0, 0.0
        survival: list[float] = []
        area: list[float] = []
        for bin_, (edge, ended, cut) in enumerate(zip(_EDGES, self._ended, self._cut, strict=True)):
            area.append(mean)
            width = _EDGES[bin_ + 1] - edge if bin_ + 1 < len(_EDGES) else 0
            dying = alive * min(ended, at_risk) / at_risk if at_risk > 0 else 0.0
            alive -= dying
            survival.append(alive)
            mean += alive * width + (dying * (self._tokens[bin_] / ended - edge) if dying else 0.0)
            at_risk -= ended + cut
        self._made = (survival, area)
        self._made_at = self.count
        return self._made


class LengthEstimate:
    """What the job's answers so far say of the next ones. Its memory is constant.

    One thread may add while another asks.
    """

    def __init__(self) -> None:
        self._all = _Curve()
        self._by_size: dict[int, _Curve] = {}

    @property
    def count(self) -> int:
        """How many answers it has seen."""
        return self._all.count

    def observe(self, prompt_tokens: int, completion_tokens: int, *, cut: bool) -> None:
        """One answer came; ``cut`` says that it was cut off (finish reason ``length``) and would have gone on."""
        bin_ = bisect_right(_EDGES, completion_tokens) - 1
        self._all.add(bin_, completion_tokens, cut)
        curve = self._by_size.get(size := prompt_tokens.bit_length())
        if curve is None:
            curve = self._by_size[size] = _Curve()
        curve.add(bin_, completion_tokens, cut)

    def expected(self, prompt_tokens: int, most: int, least: int = 0) -> float:
        """Expected tokens of an answer that ends at ``most`` tokens at the latest and at ``least`` at the earliest."""
        if least >= most:
            return float(most)
        curve = self._by_size.get(prompt_tokens.bit_length())
        if curve is None or curve.count < ENOUGH:
            curve = self._all
        mean = curve.restricted_mean(most) if curve.count else -PRIOR_MEAN * expm1(-most / PRIOR_MEAN)
        return max(1.0, float(least), mean)

    def quantile(self, share: float) -> int | None:
        """The length that this share of answers stays below, cut ones taken as longer; None before the first answer."""
        return self._all.quantile(share) if self._all.count else None


__all__ = ["ENOUGH", "PRIOR_MEAN", "LengthEstimate"]
