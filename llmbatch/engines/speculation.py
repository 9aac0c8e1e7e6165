"""Counts of guessed tokens in, as they grow; whether guessing still pays, out.

A guessed token that is wrong was computed for nothing. How many must be right depends on the price of computing one more beside
the others: almost nothing where the engine waits for its memory, as much as any token where it is busy computing. The tuner
measures that price (``break_even``); without it ``engine.least_acceptance`` is a low share that hardly ever pays.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import Request
from llmbatch.engines.base import NO_DRAFTS, Drafts

_WINDOW = 2_000  # guessed tokens that are judged together
_LOW_WINDOWS = 2  # in a row, so that one odd document ends nothing


class Acceptance:
    """Of one engine: is shown its counts now and then, and says once that it is to go on without speculation."""

    def __init__(self, least: float) -> None:
        self.least = least
        self._judged = Drafts()
        self._low = 0

    def begin(self) -> None:
        """The engine is made anew, and counts from nothing."""
        self._judged = Drafts()

    def is_too_low(self, drafts: Drafts) -> bool:
        """Whether too little of what was guessed lately was right; ``drafts`` counts from the engine's start."""
        window = drafts - self._judged
        if window.share is None or window.tokens < _WINDOW:
            return False
        self._judged = drafts
        self._low = self._low + 1 if window.share < self.least else 0
        return self._low >= _LOW_WINDOWS


def is_drawn(request: Request) -> bool:
    """Whether its answer is drawn with a seed: with and without speculation a seed gives other answers, as fair as these."""
    sampling = request.sampling
    seeded = request.seed is not None or sampling.get("seed") not in (None, NO_SEED)
    return seeded and sampling.get("temperature") != 0


def break_even(gain: float, answer_tokens: int, drafts: Drafts) -> float | None:
    """The share of guessed tokens that must be right for speculation to pay, from a trial of it; None where nothing was guessed.

    ``gain`` is its speed against that without it, for the same answers. With D guessed tokens of which A were right, G tokens took
    G - A steps of a sequence and the sums for D more tokens: so the time is that of G - A + e D tokens, and it is G / gain. What
    comes out as the price e of a guessed token is also the share A / D at which speculation neither wins nor loses.
    """
    if not drafts.tokens or gain <= 0:
        return None
    price = (answer_tokens / gain - (answer_tokens - drafts.accepted)) / drafts.tokens
    return min(1.0, max(0.0, price))


@dataclass(slots=True)
class Guessing:
    """What an engine guessed ahead, over its restarts."""

    acceptance: Acceptance
    past: Drafts = NO_DRAFTS
    answered: int = 0
    drawn: bool = False  # an answer was drawn with a seed
    over: bool = False  # it was decided whether to go on, and said
    fell_after: int | None = None  # answered requests
    at_fall: Drafts | None = None


__all__ = ["Acceptance", "Guessing", "break_even", "is_drawn"]
