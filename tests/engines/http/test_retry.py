"""What a reply's status and headers mean for the request."""

from __future__ import annotations

import pytest

from llmbatch.engines.http.retry import Verdict, back_off, retry_after, verdict

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("statuses", "meaning"),
    [
        ((200, 201), Verdict.ANSWERED),
        ((408, 429, 503, 504, 529), Verdict.PUSHED_BACK),
        ((502,), Verdict.AWAY),
        ((500, 520), Verdict.AGAIN),
        ((401, 402, 403), Verdict.DENIED),
        ((301, 307), Verdict.MISPLACED),
        ((400, 404, 413, 422, 501), Verdict.REFUSED),
    ],
)
def test_a_status_has_one_meaning(statuses: tuple[int, ...], meaning: Verdict) -> None:
    assert {verdict(status) for status in statuses} == {meaning}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:30 GMT"}, 90.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after": "9e9"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_waits_double_up_to_half_a_minute_and_are_spread() -> None:
    assert [back_off(tries, 1.0) for tries in (1, 2, 3, 7, 8, 100)] == [0.25, 0.5, 1.0, 16.0, 30.0, 30.0]
    assert back_off(3, 0.0) == 0.5
