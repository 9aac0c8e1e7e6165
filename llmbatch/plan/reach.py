"""Windows of prompts in, one by one -> how much more prefixes they would share if the windows were larger, out.

Rows that share a prefix but lie in different windows are not brought together. Prefixes are remembered by a hash, of a
length that grows by a quarter from one to the next, with the window that last had them; when too many are known, half of
them are forgotten, by their hash, and the others count double. So memory is bounded, and the shares are estimates from
below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from llmbatch.core.digest import TOKEN_BYTES

_DOUBLINGS = 12


def _depths() -> list[int]:
    depths: list[int] = []
    depth = 1.0
    while depth < 2**20:
        if not depths or int(depth) > depths[-1]:
            depths.append(int(depth))
        depth *= 1.25
    return depths


_DEPTHS = _depths()  # blocks


@dataclass(frozen=True, slots=True)
class LargerWindow:
    """What a window that holds ``factor`` times as much would let a large enough cache spare, as shares of the tokens."""

    factor: int
    share: float
    share_now: float
    distinct_tokens: int  # a KV cache that holds so many needs no larger window


class Reach:
    """Counts how far apart in the input the rows lie that share a prefix."""

    def __init__(self, block_size: int, most_known: int = 200_000) -> None:
        self._most_known = most_known
        self._width = block_size * TOKEN_BYTES
        self._last: dict[int, int] = {}
        self._mask = 0
        self._windows = 0
        self._tokens = 0
        # By j: tokens shared by rows in one group of 2**j windows, but not in one of 2**(j - 1).
        self._shared = [0] * (_DOUBLINGS + 1)

    def add(self, prompts: Sequence[bytes]) -> None:
        """The packed prompts of the next window."""
        for prompt in prompts:
            self._tokens += len(prompt) // TOKEN_BYTES
            blocks = (len(prompt) - TOKEN_BYTES) // self._width
            before = 0
            for depth in _DEPTHS:
                if depth > blocks:
                    break
                self._count(hash(prompt[: depth * self._width]), (depth - before) * self._width // TOKEN_BYTES)
                before = depth
        self._windows += 1
        while len(self._last) > self._most_known:
            self._mask = 2 * self._mask + 1
            self._last = {prefix: window for prefix, window in self._last.items() if not prefix & self._mask}

    def larger(self, min_gain: float = 0.05) -> LargerWindow | None:
        """The smallest window that shares nearly all that any could; None if that is not ``min_gain`` more than now."""
        if not self._tokens:
            return None
        shares = [tokens / self._tokens for tokens in accumulate(self._shared)]
        if shares[-1] - shares[0] < min_gain:
            return None
        enough = shares[-1] - 0.05 * (shares[-1] - shares[0])
        doublings = next(j for j, share in enumerate(shares) if share >= enough)
        distinct = round(self._tokens * (1.0 - shares[-1]))
        return LargerWindow(2**doublings, shares[doublings], shares[0], distinct)

    def _count(self, prefix: int, tokens: int) -> None:
        if prefix & self._mask:
            return
        last = self._last.get(prefix)
        if last is not None:
            apart = (last ^ self._windows).bit_length()
            if apart <= _DOUBLINGS:
                self._shared[apart] += tokens * (self._mask + 1)
        self._last[prefix] = self._windows
