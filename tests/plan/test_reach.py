from __future__ import annotations

from array import array
from random import Random

import pytest

from llmbatch.plan.reach import LargerWindow, Reach


def prompts(groups: list[int], prefix: int = 160, tail: int = 16) -> list[bytes]:
    """One prompt for each group named: the group's own prefix, and a tail that no other has."""
    found = []
    for group in groups:
        start = Random(group)
        ids = [start.randrange(30_000) for _ in range(prefix)] + [_random.randrange(30_000) for _ in range(tail)]
        found.append(array("I", ids).tobytes())
    return found


_random = Random(0)


def larger(*windows: list[int], most_known: int = 100_000) -> LargerWindow | None:
    counted = Reach(16, most_known)
    for window in windows:
        counted.add(prompts(window))
    return counted.larger()


def test_sharers_in_one_window_need_no_larger_one() -> None:
    assert larger([1] * 8, [2] * 8, [3] * 8) is None


def test_rows_with_nothing_in_common_need_none() -> None:
    assert larger(*([group] for group in range(50))) is None


def test_sharers_apart_are_found_with_the_window_that_holds_them() -> None:
    found = larger(*(list(range(50)) for _ in range(8)))
    assert found is not None
    assert found.factor == 8
    assert found.share_now == 0
    assert found.share == pytest.approx(7 / 8 * 160 / 176, rel=0.2)
    assert found.distinct_tokens == pytest.approx((50 * 160 + 400 * 16), rel=0.5)


def test_the_smallest_window_that_does_is_named() -> None:
    pairs = [[2 * i, 2 * i + 1] for i in range(16)]
    found = larger(*(window for pair in pairs for window in (pair, pair)))
    assert found is not None
    assert found.factor == 2


def test_forgetting_half_of_what_is_known_keeps_the_estimate() -> None:
    windows = [list(range(400)) for _ in range(4)]
    exact = larger(*windows)
    sampled = larger(*windows, most_known=1000)
    assert exact is not None
    assert sampled is not None
    assert sampled.factor == exact.factor
    assert sampled.share == pytest.approx(exact.share, rel=0.3)
