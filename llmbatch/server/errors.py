"""What a request is refused with: a status and words, to which each front gives its own form."""

from __future__ import annotations

import traceback
from typing import NamedTuple

_FRAMES = 6


class ApiError(Exception):
    """A request that is not done. ``retry``: the same request may succeed later, so that a client may send it again by itself.

    ``code`` is a word for programs, ``param`` the part of the request that is meant.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry = retry


class Room(NamedTuple):
    """How many bytes may come in, and what is said to more."""

    bytes: int
    error: ApiError


def place_of(error: BaseException) -> str:
    """What kind of error it is and where it came up, for the log: its words may hold what somebody sent."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {where}"


def not_found(what: str, name: str) -> ApiError:
    """The answer for what is not there, and for what is another owner's: nobody learns which of the two it is."""
    return ApiError(404, f"No such {what}: {name}", code="not_found", param="id")
