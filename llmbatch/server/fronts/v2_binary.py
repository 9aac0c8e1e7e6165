"""The body of an inference request in, with tensors as JSON or in binary form behind it; the same with all of them as JSON out."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmbatch.server.errors import ApiError

_TYPES = {
    "BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_SIZE, _AS_BINARY = "binary_data_size", "binary_data_output"


def read_body(raw: bytes, json_bytes: str | None) -> dict[str, Any]:
    """``json_bytes`` is how long the JSON is that tensors in binary form follow. Raises ``ApiError``."""
    if json_bytes is not None and not (json_bytes.isdecimal() and int(json_bytes) <= len(raw)):
        raise ApiError(400, "the header Inference-Header-Content-Length does not fit the body")
    end = len(raw) if json_bytes is None else int(json_bytes)
    try:
        body = json.loads(raw[:end])
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "failed to parse the request JSON buffer") from error
    if not isinstance(body, dict):
        raise ApiError(400, "the request is not a JSON object")
    if isinstance(parameters := body.get("parameters"), dict):
        parameters.pop(_AS_BINARY, None)  # who would take the answer in binary form takes it as JSON too
    inputs, rest = body.get("inputs"), raw[end:]
    if isinstance(inputs, list):
        read = []
        for each in inputs:
            tensor, rest = _with_data(each, rest)
            read.append(tensor)
        body["inputs"] = read
    if rest:
        raise ApiError(400, f"{len(rest):,} bytes of the body belong to no input")
    return body


def _with_data(tensor: Any, rest: bytes) -> tuple[Any, bytes]:
    """(the tensor with its data, what of the body comes behind it)."""
    parameters = tensor.get("parameters") if isinstance(tensor, Mapping) else None
    if not isinstance(parameters, Mapping) or _SIZE not in parameters:
        return tensor, rest
    size = parameters[_SIZE]
    if not isinstance(size, int) or not 0 <= size <= len(rest):
        raise ApiError(400, f"{_SIZE} of an input does not fit the body")
    left = {key: value for key, value in parameters.items() if key != _SIZE}
    values = _values(str(tensor.get("datatype")), rest[:size])
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape) or math.prod(shape) != len(values):
        raise ApiError(400, "the shape of an input does not fit its data")
    return {**tensor, "parameters": left, "data": values}, rest[size:]


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        return _texts(raw)
    kind = _TYPES.get(datatype)
    if kind is None or len(raw) % np.dtype(kind).itemsize:
        raise ApiError(400, f"an input of the datatype {datatype[:20]!r} is not read in binary form")
    values: list[Any] = np.frombuffer(raw, kind).tolist()
    return values


def _texts(raw: bytes) -> list[str]:
    """Each text has its length before it, in four bytes."""
    texts, at = [], 0
    while at < len(raw):
        try:
            (length,) = struct.unpack_from("<I", raw, at)
            text = raw[at + 4 : at + 4 + length].decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise ApiError(400, "an input of texts in binary form is not whole, or not UTF-8") from error
        if at + 4 + length > len(raw):
            raise ApiError(400, "an input of texts in binary form is not whole")
        texts.append(text)
        at += 4 + length
    return texts
