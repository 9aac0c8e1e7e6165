"""Answers and push-backs of a server in; how many requests it is sent at a time out: a level that is found, and follows the server.

It doubles as long as that makes answers come faster, and goes back to the last level that did. A server that pushes back (429, 503,
a time-out) has it multiplied by 0.7, once for all that was sent before it said so; then it comes back, fast at first, and slower
the nearer it is to where it was pushed back. Now and then a little more is tried, and kept where it is faster. Of a server that
tells how many requests wait in it, that is asked first: one that has no use for more is not given more.

The rate at a level is that of a round of answers, after those to what was sent before the level was reached.
"""

from __future__ import annotations

_START = 64
_MOST = 4096
_LEAST = 1
_FASTER = 1.08  # what is faster by less is as fast
_BACK = 0.7
_NEARER = 0.25  # of the way back, a round
_TRY_MORE = 1.25
_ROUNDS_BETWEEN = 8  # before a little more is tried again


class Limit:
    """The level for one server. Times are seconds of any clock that only goes on; ``fixed`` is a level that never changes.

    With ``asks`` a higher level is ``wanted`` first, until somebody calls ``permit``.
    """

    def __init__(self, fixed: int | None = None, *, start: int = _START, most: int = _MOST, asks: bool = False) -> None:
        self._fixed = fixed
        self._most = most
        self._level = float(fixed or min(start, most))
        self._asks = asks
        self.wanted: float | None = None  # the level that is to be tried, where that is to be permitted
        self._doubling = True
        self._before: float | None = None  # the level that was left for this one, which is on trial
        self._best_rate = 0.0
        self._pushed_back_at = float("-inf")
        self._ceiling: float | None = None  # where it was last pushed back
        self._threshold = 0.0  # below it the level grows by one with every answer
        self._answered = True  # since it was last pushed back
        self._rounds = 0  # since a little more was tried
        self._began: float | None = None  # of this round
        self._skip = 0.0  # answers that belong to an earlier level
        self._round = self._level  # how many answers are one
        self._answers = 0
        self._work = 0.0

    @property
    def now(self) -> int:
        """How many may be in flight."""
        return int(self._level)

    def answered(self, sent_at: float, at: float, work: float = 1.0, *, full: bool = True) -> None:
        """A request that was sent then was answered.

        ``work`` is how much there was to do, in any unit; ``full`` says that the server had as many as it may.
        """
        if self._fixed is not None:
            return
        self._answered = True
        if self._level < self._threshold:
            self._level += 1
        if self._skip > 0:
            self._skip -= 1
            self._begin_round(at)
            return
        if not full:  # a rate with fewer in flight says nothing of the level
            self._begin_round(at)
            return
        if self._began is None:
            self._began = sent_at
        self._answers += 1
        self._work += work
        if self._answers >= self._round:
            seconds = at - self._began
            if seconds > 0:
                self._end_round(self._work / seconds)
            self._begin_round(at)

    def permit(self, may: bool) -> None:
        """Try the level that is wanted, or stay."""
        wanted, self.wanted = self.wanted, None
        if wanted is None:  # the server pushed back meanwhile
            return
        if may:
            self._go_to(wanted)
        else:
            self._doubling = False

    def pushed_back(self, sent_at: float, at: float) -> None:
        """The server had too much of a request that was sent then."""
        if self._fixed is not None or sent_at <= self._pushed_back_at:
            return
        self._pushed_back_at = at
        if self._answered:  # of push-backs in a row the first tells how much was too much
            self._ceiling = self._level
            self._threshold = self._level * _BACK
        self._answered = self._doubling = False
        self._before = self.wanted = None
        self._level = max(_LEAST, self._level * _BACK)
        self._begin_round(at)

    def _begin_round(self, at: float) -> None:
        self._began = at
        self._round = self._level  # no fewer: answers may come in bursts of as many
        self._answers = 0
        self._work = 0.0

    def _end_round(self, rate: float) -> None:
        if self._before is not None and rate < _FASTER * self._best_rate:
            self._level, self._before, self._doubling = self._before, None, False
            self._skip = self._level
            return
        self._before, self._best_rate = None, rate
        if self._doubling:
            self._try(2 * self._level)
        elif self._ceiling is not None:
            self._level = min(self._level + max(1.0, (self._ceiling - self._level) * _NEARER), self._most)
            if self._level >= self._ceiling:
                self._ceiling = None
        else:
            self._rounds += 1
            if self._rounds >= _ROUNDS_BETWEEN:
                self._rounds = 0
                self._try(max(self._level + 1, self._level * _TRY_MORE))

    def _try(self, level: float) -> None:
        """Go to another level, and see whether it is faster."""
        level = min(level, self._most)
        if self._asks and level > self._level:
            self.wanted = level
        else:
            self._go_to(level)

    def _go_to(self, level: float) -> None:
        if level > self._level:
            self._before, self._skip, self._level = self._level, self._level, level
