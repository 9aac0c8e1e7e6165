"""The binary extension of the V2 protocol: JSON with the data of some inputs as bytes behind it, in; the whole request out."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmbatch.core.words import short, type_name
from llmbatch.formats.kserve import WireError

_FORMS = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_SIZE = "binary_data_size"


def read_body(
    content: bytes, header_length: int | None = None, *, loads: Callable[[bytes], Any] = json.loads
) -> dict[str, Any]:
    """The request, with all data in it. ``header_length`` is how many bytes are JSON; None: all. Raises ``WireError``.

    ``loads`` reads JSON, and raises ``ValueError`` for what is none.
    """
    end = len(content) if header_length is None else header_length
    if not 0 <= end <= len(content):
        raise WireError(f"the JSON is said to have {end:,} bytes, and the body has {len(content):,}")
    try:
        body = loads(content[:end])
    except (ValueError, RecursionError) as error:
        raise WireError(f"the request is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise WireError(f"a request is an object, and this is of type {type_name(body)}")
    at = end
    inputs = body.get("inputs")
    for each in inputs if isinstance(inputs, list) else ():
        size = _size_of(each)
        if size is not None:
            if at + size > len(content):
                raise WireError(f"the data of the input {short(each.get('name'))} ends behind the body")
            each["data"] = list(_values(content[at : at + size], str(each.get("datatype"))))
            del each["parameters"][_SIZE]
            at += size
    if at != len(content):
        raise WireError(f"{len(content) - at:,} bytes of the body belong to no input")
    return body


def _size_of(tensor: Any) -> int | None:
    parameters = tensor.get("parameters") if isinstance(tensor, Mapping) else None
    size = parameters.get(_SIZE) if isinstance(parameters, Mapping) else None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise WireError(f"{_SIZE} is {short(size)}")
    return size


def _values(data: bytes, datatype: str) -> Iterator[Any]:
    """The values; each text has its length before it, in four bytes, the lowest first, as have numbers."""
    if datatype != "BYTES":
        form = _FORMS.get(datatype)
        if form is None or len(data) % struct.calcsize(form):
            raise WireError(f"{len(data):,} bytes are no values of the datatype {short(datatype)}")
        for (value,) in struct.iter_unpack(f"<{form}", data):
            if isinstance(value, float) and not math.isfinite(value):
                raise WireError(f"the data of the datatype {datatype} hold NaN or an infinity")
            yield value
        return
    at = 0
    while at < len(data):
        end = at + 4
        size = int.from_bytes(data[at:end], "little")
        if end > len(data) or end + size > len(data):
            raise WireError("a text ends behind the data of its input")
        try:
            yield data[end : end + size].decode()
        except UnicodeDecodeError as error:
            raise WireError(f"a text is not UTF-8: {error}") from None
        at = end + size


__all__ = ["read_body"]
