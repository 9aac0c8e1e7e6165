from __future__ import annotations

from llmbatch.accept.forecast import Forecast, Share


def seen(good: int, bad: int) -> Share:
    share = Share()
    for number in range(good + bad):
        share.add(number * good % (good + bad) < good)  # evenly among the others
    return share


def test_before_anything_was_seen_no_more_is_asked_than_is_needed_at_least() -> None:
    assert Forecast(0, Share(), Share()).candidates(100) == 100


def test_on_average_as_many_are_asked_as_the_share_says() -> None:
    assert 2600 < Forecast(0, seen(370, 630), Share()).candidates(1000) < 2800


def test_those_that_are_known_to_pass_are_taken_off() -> None:
    share = seen(500, 500)
    assert Forecast(400, share, Share()).candidates(1000) * 1.6 < Forecast(0, share, Share()).candidates(1000)
    assert Forecast(1000, share, Share()).candidates(1000) == 0


def test_with_better_luck_or_a_higher_share_fewer_are_needed_and_with_worse_luck_more() -> None:
    forecast = Forecast(0, seen(50, 50), Share())
    assert forecast.candidates(100, luck=2) < forecast.candidates(100) < forecast.candidates(100, luck=-2)
    assert forecast.candidates(100, doubt=2) < forecast.candidates(100)
