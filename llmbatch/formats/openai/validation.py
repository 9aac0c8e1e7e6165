"""The lines of a batch's input file in; what is wrong with the file, before anything of it is run, out: as the Batch API checks it.

What is wrong with a request's own parameters is not looked at: that is the row's failure, once it is run. Azure's list of codes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from llmbatch.core.words import excerpt, short, type_name
from llmbatch.formats.openai.format import ENDPOINTS, endpoint_of

_SHARES = 64  # that ids are divided into, so that of one share after the other the duplicates are looked for


class Problem(NamedTuple):
    """One thing that is wrong. ``line`` is counted from 1, None where it is the whole file; ``param`` is a key of the line."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


def problems(
    lines: Iterable[bytes],
    *,
    endpoint: str | None = None,
    models: Collection[str] | None = None,
    most: int | None = None,
) -> Iterator[Problem]:
    """What is wrong with a file, line by line, and at its end which ids there are twice; nothing where it may be run.

    ``endpoint`` is the batch's, in either spelling; without it, that of the first line. ``models`` are those that there are,
    None for any; ``most`` is how many requests a file may have. Blank lines count as lines and not as requests. Memory: 12 bytes
    a request.
    """
    seen = _Ids()
    first = _First(None if endpoint is None else endpoint_of(endpoint) or endpoint)
    requests = 0
    for number, raw in enumerate(lines, 1):
        if raw.isspace() or not raw:
            continue
        requests += 1
        if most is not None and requests > most:
            yield Problem("too_many_tasks", f"the file has more than {most:,} requests: divide it into several", number)
            break
        yield from _line(raw, number, seen, first, models)
    if not requests:
        yield Problem("empty_file", "the file has no request")
    yield from seen.twice()


class _First:
    """What all lines must have in common: the endpoint, and the model of the first that names one."""

    def __init__(self, endpoint: str | None) -> None:
        self.endpoint = endpoint
        self.of_batch = endpoint is not None
        self.model: str | None = None


def _line(raw: bytes, number: int, seen: _Ids, first: _First, models: Collection[str] | None) -> Iterator[Problem]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        yield Problem("invalid_json_line", f"this line is no JSON; saw: {excerpt(raw)}", number)
        return
    if (wrong := _shape(line)) is not None:
        yield Problem("invalid_request", wrong[0], number, wrong[1])
        return
    url, body, custom_id = line["url"], line["body"], line["custom_id"]
    endpoint = endpoint_of(url)
    if endpoint is None:
        known = ", ".join(ENDPOINTS)
        yield Problem("invalid_request", f"the url {short(url)} is not supported; known are {known}", number, "url")
    elif first.endpoint is None:
        first.endpoint = endpoint
    elif endpoint != first.endpoint:
        of = "the batch is for" if first.of_batch else "the lines before have"
        yield Problem("url_mismatch", f"the url is {short(url)}, and {of} {first.endpoint}", number, "url")
    model = body.get("model")
    if first.model is not None and isinstance(model, str) and model != first.model:
        said = f"the model is {short(model)}, and the lines before have {short(first.model)}: one file, one model"
        yield Problem("model_mismatch", said, number, "body.model")
    elif models is not None and model not in models:
        known = ", ".join(sorted(models))
        yield Problem("model_not_found", f"there is no model {short(model)}; there is {known}", number, "body.model")
    elif isinstance(model, str):
        first.model = model
    seen.add(custom_id, number)


def _shape(line: Any) -> tuple[str, str | None] | None:
    """What makes a line no request at all, and its key."""
    if not isinstance(line, Mapping):
        return f"a request is an object, and this is of type {type_name(line)}", None
    for key, kind in (("custom_id", str), ("method", str), ("url", str), ("body", Mapping)):
        value = line.get(key)
        if value is None:
            return f"the request has no {key}", key
        if not isinstance(value, kind):
            return f"{key} is of type {type_name(value)} ({short(value)})", key
    if line["method"] != "POST":
        return f"the method must be POST, not {short(line['method'])}", "method"
    return ("custom_id is empty", "custom_id") if not line["custom_id"] else None


class _Ids:
    """The ids of a file, as digests of 64 bits with their lines."""

    def __init__(self) -> None:
        self._digests = [array("Q") for _ in range(_SHARES)]
        self._lines = [array("I") for _ in range(_SHARES)]

    def add(self, custom_id: str, line: int) -> None:
        digest = int.from_bytes(blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        self._digests[digest % _SHARES].append(digest)
        self._lines[digest % _SHARES].append(line)

    def twice(self) -> Iterator[Problem]:
        """Every line whose id a line before it has, in their order."""
        found: list[tuple[int, int]] = []
        for digests, lines in zip(self._digests, self._lines, strict=True):
            first: dict[int, int] = {}
            for digest, line in zip(digests, lines, strict=True):
                before = first.setdefault(digest, line)
                if before != line:
                    found.append((line, before))
        for line, before in sorted(found):
            said = f"line {before} has the same custom_id: each request needs one of its own"
            yield Problem("duplicate_custom_id", said, line, "custom_id")


__all__ = ["Problem", "problems"]
