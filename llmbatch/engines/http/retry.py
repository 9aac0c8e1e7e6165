"""What a server replied in; whether the same request goes again, and after how many seconds, out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

_FIRST_SECONDS = 0.25
_MOST_SECONDS = 30.0
_LONGEST_ASKED = 24 * 3600.0  # what asks for more is no date of ours


class Verdict(Enum):
    """What a status means for the request."""

    ANSWERED = "answered"
    PUSHED_BACK = "pushed back"  # the server has too much to do: the same request again, and fewer at a time
    AWAY = "away"  # what is behind a gateway is not there: the same request again
    AGAIN = "again"  # the server failed at it: the same request again, a few times
    DOUBTFUL = "doubtful"  # the server failed at it, or refuses it and says so in the same way: a harmless one tells
    DENIED = "denied"  # no key, a wrong one, or no credit: no request will be answered
    MISPLACED = "misplaced"  # this is not where the server is
    REFUSED = "refused"  # the request itself: never again


_VERDICTS = {
    401: Verdict.DENIED, 402: Verdict.DENIED, 403: Verdict.DENIED, 407: Verdict.DENIED,
    408: Verdict.PUSHED_BACK, 425: Verdict.PUSHED_BACK, 429: Verdict.PUSHED_BACK,
    501: Verdict.REFUSED, 502: Verdict.AWAY, 503: Verdict.PUSHED_BACK, 504: Verdict.PUSHED_BACK, 505: Verdict.REFUSED,
    529: Verdict.PUSHED_BACK,
}  # fmt: skip


def verdict(status: int) -> Verdict:
    """What a status means."""
    if 200 <= status < 300:
        return Verdict.ANSWERED
    if status in _VERDICTS:
        return _VERDICTS[status]
    if status >= 500:
        return Verdict.AGAIN
    return Verdict.REFUSED if status >= 400 else Verdict.MISPLACED


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a server asks to wait (a number, or an HTTP date against ``now``, seconds since 1970); ``None``: none.

    Header names are in lower case. What cannot be read counts as not there.
    """
    if (seconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(seconds / 1000, _LONGEST_ASKED)
    asked = headers.get("retry-after")
    if asked is None:
        return None
    if (seconds := _number(asked)) is not None:
        return min(seconds, _LONGEST_ASKED)
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - now), _LONGEST_ASKED)


def back_off(tries: int, share: float) -> float:
    """The seconds to wait after so many ``tries`` that failed; ``share`` (0 to 1) spreads them, so that not all come at once."""
    longest: float = min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** min(tries - 1, 16))
    return longest * (0.5 + share / 2)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
