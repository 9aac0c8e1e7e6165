"""Answers and push-backs of a server in; how many requests it is sent at a time out: a level that is found, and follows the server.

It grows by one with every answer, so that it doubles with every round of answers, as long as rounds get faster. When two in a row
are not, it stays at the level of the fastest. A server that pushes back (429, 503, a time-out) has it multiplied by 0.7, once for
all that was sent before it said so; then it comes back, fast at first, and slower the nearer it is to where it was pushed back.
Now and then a little more is tried, and kept where it is faster.
"""

from __future__ import annotations

_START = 64
_MOST = 4096
_LEAST = 1
_FASTER = 1.05  # a round that is faster than the best so far by less than this is as fast
_SLOW_ROUNDS = 2
_BACK = 0.7
_NEARER = 0.25  # of the way back, a round
_TRY_MORE = 1.25
_ROUNDS_BETWEEN = 8  # before a little more is tried again


class Limit:
    """The level for one server. Times are seconds of any clock that only goes on; ``fixed`` is a level that never changes."""

    def __init__(self, fixed: int | None = None, *, start: int = _START, most: int = _MOST) -> None:
        self._fixed = fixed
        self._most = most
        self._level = float(fixed or min(start, most))
        self._growing = True  # by one with every answer
        self._best_rate = 0.0
        self._best_level = self._level
        self._slow = 0  # rounds in a row that were not faster
        self._pushed_back_at = float("-inf")
        self._ceiling: float | None = None  # where it was last pushed back
        self._threshold = 0.0  # below it the level grows by one with every answer
        self._answered = True  # since it was last pushed back
        self._trying_from: float | None = None  # the level before a little more is tried
        self._calm = 0  # rounds since then
        self._began: float | None = None  # of this round
        self._round = self._level  # the level as it began, and how many answers are one
        self._answers = 0
        self._work = 0.0

    @property
    def now(self) -> int:
        """How many may be in flight."""
        return int(self._level)

    def answered(self, at: float, work: float = 1.0, *, full: bool = True) -> None:
        """One request was answered. ``work``: how much there was to do, in any unit; ``full``: it had as many as it may."""
        if self._fixed is not None:
            return
        self._answered = True
        if self._level < self._threshold:
            self._level += 1
        if self._began is None or not full:  # a rate with fewer in flight says nothing of the level
            self._begin_round(at)
            return
        self._answers += 1
        self._work += work
        if self._growing:
            self._level = min(self._level + 1, self._most)
        if self._answers >= self._round:
            seconds = at - self._began
            if seconds > 0:
                self._end_round(self._work / seconds)
            self._begin_round(at)

    def pushed_back(self, sent_at: float, at: float) -> None:
        """The server had too much of a request that was sent then."""
        if self._fixed is not None or sent_at <= self._pushed_back_at:
            return
        self._pushed_back_at = at
        if self._answered:  # of push-backs in a row the first tells how much was too much
            self._ceiling = self._level
            self._threshold = self._level * _BACK
        self._answered = self._growing = False
        self._trying_from = None
        self._level = max(_LEAST, self._level * _BACK)
        self._best_rate = 0.0
        self._begin_round(at)

    def _begin_round(self, at: float) -> None:
        self._began = at
        self._round = self._level
        self._answers = 0
        self._work = 0.0

    def _end_round(self, rate: float) -> None:
        if self._growing:
            self._grow(rate)
        elif self._ceiling is not None:
            self._level = min(self._level + max(1.0, (self._ceiling - self._level) * _NEARER), self._most)
            if self._level >= self._ceiling:
                self._ceiling = None
        elif self._trying_from is not None:
            self._judge(rate)
        else:
            self._best_rate = rate
            self._calm += 1
            if self._calm >= _ROUNDS_BETWEEN:
                self._trying_from = self._level
                self._calm = -1  # the round after a change has answers to what was sent before it
                self._level = min(max(self._level + 1, self._level * _TRY_MORE), self._most)

    def _grow(self, rate: float) -> None:
        if rate >= _FASTER * self._best_rate:
            self._best_rate, self._best_level, self._slow = rate, self._round, 0
            return
        self._slow += 1
        if self._slow >= _SLOW_ROUNDS or self._level >= self._most:
            self._growing = False
            self._level = self._best_level

    def _judge(self, rate: float) -> None:
        if self._calm < 0:
            self._calm = 0
            return
        if rate < _FASTER * self._best_rate and self._trying_from is not None:
            self._level = self._trying_from
        self._trying_from = None
