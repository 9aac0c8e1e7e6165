"""A multipart body in, as it comes; its file on disk and its fields out, in memory that does not grow with the file."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llmbatch.core.words import clip, printable
from llmbatch.server.errors import ApiError, Room

_BLOCK = 1 << 20  # bytes that are gathered before they are written
_MOST_FIELDS = 32
_LONGEST_FIELD = 64 << 10
_LONGEST_NAME = 255


@dataclass(slots=True)
class Form:
    """What came: the fields by name, the file's name as a text (never as a place), and its size; None where there was no file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    bytes: int | None = None


async def receive_form(content_type: str, chunks: AsyncIterator[bytes], place: Path, room: Room) -> Form:
    """Read a form to its end, with its part ``file`` into ``place``, synced. Raises ``ApiError``; then ``place`` is gone."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(400, "the body must be multipart/form-data, with a file in it", code="invalid_content_type")
    try:
        with place.open("xb") as stream:
            form = await _read(_Parts(stream, room), boundary, chunks)
            await asyncio.to_thread(_sync, stream)
    except BaseException as error:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ApiError(507, f"the file cannot be stored: {error.strerror}", code="insufficient_storage") from error
        if isinstance(error, FormParserError):
            raise ApiError(400, "the body is no whole multipart form", code="invalid_multipart") from error
        raise
    return form


async def _read(parts: _Parts, boundary: bytes, chunks: AsyncIterator[bytes]) -> Form:
    parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
    async for chunk in chunks:
        parser.write(chunk)
        if parts.gathered >= _BLOCK:
            await asyncio.to_thread(parts.write)
    await asyncio.to_thread(parts.write)
    if not parts.ended:
        raise ApiError(400, "the body ends before its form does", code="invalid_multipart")
    return parts.form


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


class _Parts:
    """Takes what the parser finds. Writing is left to ``write``, which is called outside of the event loop."""

    def __init__(self, stream: BinaryIO, room: Room) -> None:
        self.form = Form()
        self.ended = False
        self.gathered = 0
        self._blocks: list[bytes] = []
        self._stream = stream
        self._room = room
        self._header = [bytearray(), bytearray()]
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None  # the name of the part that is at hand
        self._value = bytearray()
        self._parts = 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._named,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def write(self) -> None:
        blocks, self._blocks, self.gathered = self._blocks, [], 0
        self._stream.writelines(blocks)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_FIELDS:
            raise ApiError(400, f"the form has more than {_MOST_FIELDS} parts", code="invalid_multipart")
        self._headers, self._field, self._value = {}, None, bytearray()

    def _header_end(self) -> None:
        name, value = map(bytes, self._header)
        self._headers[name.lower()] = value
        self._header = [bytearray(), bytearray()]

    def _named(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise ApiError(
                400, "parts of the form must come as they are, without an encoding", code="invalid_multipart"
            )
        if b"filename" in options and name != "file":
            raise ApiError(400, "the form has a file that is not its part file", code="invalid_multipart", param="file")
        if name in self.form.fields or (name == "file" and self.form.bytes is not None):
            raise ApiError(400, f"the form has {clip(name, 60)!r} twice", code="invalid_multipart")
        self._field = name
        if name == "file":
            self.form.bytes = 0
            self.form.filename = _plain_name(options.get(b"filename", b"file").decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file" and self.form.bytes is not None:
            self.form.bytes += end - start
            if self.form.bytes > self._room.bytes:
                raise self._room.error
            self._blocks.append(data[start:end])
            self.gathered += end - start
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            raise ApiError(400, f"the field {clip(self._field or '', 60)!r} is too long", code="invalid_multipart")

    def _part_end(self) -> None:
        if self._field is not None and self._field != "file":
            self.form.fields[self._field] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


def _plain_name(name: str) -> str:
    """What a person calls the file: its last part, without what could drive a terminal or a header."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return clip(printable(last).replace("\n", " ").replace('"', "'"), _LONGEST_NAME) or "file"


__all__ = ["Form", "receive_form"]
