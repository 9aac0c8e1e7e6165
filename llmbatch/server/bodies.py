"""The JSON of a request in; the same out, where it can be kept and written again as it is."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Body
from pydantic import AfterValidator

from llmbatch.server.errors import ApiError
from llmbatch.sources.rows import MAX_DEPTH, depth


def sound(value: Any) -> Any:
    """A value that every list and answer can show that it is a part of. Raises ``ValueError``, in words that follow its name.

    Python's parser takes more than JSON has: what cannot be written as JSON again would, once it is stored, fail each answer that
    lists it.
    """
    if depth(value) > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no character") from None
    except ValueError:
        raise ValueError("holds NaN or Infinity, which are no numbers of JSON") from None
    return value


JsonObject = Annotated[dict[str, Any], Body(), AfterValidator(sound)]
"""A body that is an object."""


def json_object(body: bytes) -> dict[str, Any]:
    """The object that a body is, whatever it says to be of; an empty body is ``{}``. Raises ``ApiError``."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    try:
        return dict(sound(value))
    except ValueError as error:
        raise ApiError(400, f"the body {error}") from None


__all__ = ["JsonObject", "json_object", "sound"]
