from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.measure.ratios import Agreement, ratio_of
from llmbatch.measure.speed import Measured, Slice


def measured(*rates: float) -> Measured:
    return Measured(tuple(Slice(1.0, round(rate), round(rate), 0) for rate in rates), (1,), 1)


def test_the_ratio_of_what_never_varies_is_sure() -> None:
    found = ratio_of([(measured(*[1300] * 10), measured(*[1000] * 10))])
    assert found is not None
    assert tuple(found) == pytest.approx((1.3, 1.3, 1.3))


def test_what_varies_within_a_round_widens_the_interval() -> None:
    even = ratio_of([(measured(1290, 1310, 1290, 1310), measured(990, 1010, 990, 1010))])
    uneven = ratio_of([(measured(900, 1700, 900, 1700), measured(600, 1400, 600, 1400))])
    assert even is not None
    assert uneven is not None
    assert uneven.low < even.low < 1.3 < even.high < uneven.high


def test_rounds_that_disagree_count_more_than_what_varies_within_them() -> None:
    agree = ratio_of([(measured(*[1300] * 10), measured(*[1000] * 10))] * 3)
    disagree = ratio_of([(measured(*[rate] * 10), measured(*[1000] * 10)) for rate in (1100, 1300, 1500)])
    assert agree is not None
    assert disagree is not None
    assert disagree.low < 1 < agree.low


def test_a_round_too_short_to_know_its_noise_tells_nothing_alone_and_something_with_others() -> None:
    pair = measured(1300), measured(1000)
    assert ratio_of([pair]) is None
    assert ratio_of([pair, pair]) is not None


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratio_of([]) is None
    assert ratio_of([(measured(), measured(1000, 1000, 1000))]) is None


@given(st.lists(st.floats(500, 2000), min_size=1, max_size=6), st.floats(500, 2000))
def test_the_bounds_hold_what_is_expected(rates: list[float], base: float) -> None:
    found = ratio_of([(measured(*[rate] * 5), measured(*[base] * 5)) for rate in rates])
    assert found is not None
    assert 0 <= found.low <= found.expected <= found.high


def test_the_least_that_agrees_grows_with_how_many_were_compared() -> None:
    assert Agreement(0, 0).low == 0
    assert 0.9 < Agreement(50, 50).low < Agreement(500, 500).low < 1
    assert Agreement(495, 500).low < 0.99 < 1.0
