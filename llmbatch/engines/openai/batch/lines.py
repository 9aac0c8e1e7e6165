"""Requests in, the lines of a batch's file out; the lines of its output in, what each request got out.

The id of a line holds which request it is, and a digest of what it asks: a resumed run knows by it what was asked already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmbatch.core.digest import short_digest
from llmbatch.core.types import Request
from llmbatch.engines.http.base import Packed, Reply


class Line(NamedTuple):
    """A request as a line of a file. Requests of one file go to one path, and ask one model."""

    id: str
    path: str
    model: str
    text: bytes


class Got(NamedTuple):
    """What came back for a line: a reply as if it had been asked alone; none where the batch ended before it."""

    id: str
    reply: Reply | None


def line_of(request: Request, packed: Packed) -> Line:
    body = packed.body.decode()
    key = request.key
    name = f"{key.index}-{key.step}-{key.sample}-{key.attempt}-{short_digest(body)}"
    head = json.dumps({"custom_id": name, "method": "POST", "url": f"/v1{packed.path}"}, separators=(",", ":"))
    text = f'{head[:-1]},"body":{body}}}\n'.encode()
    return Line(name, packed.path, str(json.loads(body)["model"]), text)


def read_line(text: bytes) -> Line:
    """A line as ``line_of`` wrote it."""
    said = json.loads(text)
    return Line(said["custom_id"], said["url"].removeprefix("/v1"), said["body"]["model"], text)


def got(content: bytes) -> Iterator[Got]:
    """What a file of outputs or errors holds. A line that is none is left out: its request is asked again."""
    for line in content.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and isinstance(name := said.get("custom_id"), str):
            yield Got(name, _reply(said))


def _reply(said: dict[str, Any]) -> Reply | None:
    response = said.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("status_code"), int):
        return None
    return Reply(response["status_code"], {}, json.dumps(response.get("body")).encode())


__all__ = ["Got", "Line", "got", "line_of", "read_line"]
