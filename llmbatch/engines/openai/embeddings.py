"""A request for a vector in; the body that ``/v1/embeddings`` takes out. The body of its reply in, our ``Completion`` out.

Vectors are asked for as base64, in which numbers of 32 bits come as they are. A server that gives a list all the same is read too.
"""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Pooling, Refusal, Request
from llmbatch.core.words import short
from llmbatch.engines.http.base import NoAnswer, Note
from llmbatch.engines.openai.answers import data_in, usage_of
from llmbatch.engines.openai.scores import activation_field, input_fields

EMBEDDINGS = "/embeddings"


def embedding_fields(prompt: Mapping[str, Any], pooling: Pooling) -> dict[str, Any]:
    """The fields of a request. ``prompt`` is those of one for an answer: ``prompt``, or ``messages`` with what belongs to them."""
    fields = input_fields(prompt)
    if pooling.dimensions is not None:
        fields["dimensions"] = pooling.dimensions
    return {**fields, **activation_field(pooling), "encoding_format": "base64"}


def embedding_of(request: Request, pooling: Pooling, body: bytes, note: Note) -> Outcome:
    """What a reply of status 200 says. Raises ``NoAnswer`` for what is no vector."""
    data = data_in(body)
    try:
        (found,) = data["data"]
        numbers = _numbers(found["embedding"])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent no vector that can be read ({error!r}): {short(data)}") from error
    if pooling.dimensions is not None and len(numbers) != pooling.dimensions:
        said = (
            f"the server gave {len(numbers):,} numbers, and program.settings.dimensions is {pooling.dimensions:,}: "
            "it makes no such vectors with this model"
        )
        return Refusal(request.key, Failure(FailureKind.REFUSED, said))
    return Completion(request.key, "", "stop", usage_of(data.get("usage"), request, "", note), numbers=numbers)


def _numbers(said: Any) -> array[float]:
    """Raises ``TypeError`` or ``ValueError`` for what is none."""
    if not isinstance(said, str):
        # JSON has no NaN, and some write null for it
        return array("f", [math.nan if number is None else number for number in said])
    numbers = array("f", b64decode(said, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


__all__ = ["EMBEDDINGS", "embedding_fields", "embedding_of"]
