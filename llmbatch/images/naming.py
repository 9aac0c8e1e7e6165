"""What a row has for an image in; its URL (a path, a URL or a data URI) out, marked in a template's text, and parts of messages.

A template writes text. An image variable is written as a mark that no row can know, and the finished text is cut at the marks.
"""

from __future__ import annotations

import base64
import binascii
import os
import posixpath
import re
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmbatch.core.messages import image_part
from llmbatch.core.types import Message
from llmbatch.core.words import clip, short, type_name

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# the beginnings of PNG, JPEG, GIF, WebP, TIFF (twice) and BMP in base64: what a column of bytes is read as
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|Qk)[A-Za-z0-9+/]{24,}={0,2}")
_SHOWN, _SHOWN_OF_DATA = 500, 60  # characters
_BEGIN, _END = f"\ue000{secrets.token_hex(16)}:", "\ue001"
_MARK = re.compile(f"{_BEGIN}([^{_END}]*){_END}")
_SECRET = _BEGIN[1:13]  # fewer digits would now and then stand in a row's own text, such as a checksum


class Pictures(str):
    """A list of images that a template can write as it is, one after another, or take apart: ``{% for picture in pictures %}``."""

    __slots__ = ("_marks",)
    _marks: tuple[str, ...]

    def __new__(cls, marks: Sequence[str]) -> Pictures:
        made = super().__new__(cls, "".join(marks))
        made._marks = tuple(marks)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._marks)

    def __len__(self) -> int:
        return len(self._marks)

    def __getitem__(self, key: Any) -> Any:
        return self._marks[key]


def url_of(value: object) -> str:
    """The URL of an image as a row has it. Raises ``ValueError``, in words that follow the variable's name.

    A text is a path, a URL, a data URI, or the image itself in base64, as bytes of a table are read. A mapping has ``bytes`` or
    ``path``, as the columns of images of Hugging Face's datasets have, or ``url``.
    """
    if isinstance(value, str):
        if not value or value.isspace():
            raise ValueError("is blank, and must name an image")
        return f"data:;base64,{value}" if _BASE64.fullmatch(value) else value
    if isinstance(value, Mapping):
        content = value.get("bytes")
        if isinstance(content, str) and content:
            encoded = content if _is_base64(content) else base64.b64encode(content.encode()).decode()
            return f"data:;base64,{encoded}"
        named = value.get("path") or value.get("url")
        if isinstance(named, str):
            return url_of(named)
        raise ValueError(f"is an object with {short(sorted(map(str, value)))}, and an image has bytes, path or url")
    raise ValueError(f"is of type {type_name(value)} ({short(value)}), and an image is a path, a URL or a data URI")


def marked(value: object, *, several: bool) -> str:
    """What a template is given for an image variable. Raises ``ValueError``."""
    if not several:
        return _mark(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"is of type {type_name(value)} ({short(value)}), and must be a list of images")  # noqa: TRY004
    return Pictures([_mark(item) for item in value])


def parted(message: Message) -> Message:
    """The message with its images as parts. Raises ``ValueError`` where a template did something to a mark."""
    pieces = _MARK.split(message["content"])
    if len(pieces) == 1:
        if _SECRET in pieces[0].lower():
            raise ValueError(
                "an image was changed on its way through the template: write it as it is, without a filter"
            )
        return message
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        if number % 2:
            parts.append(image_part(piece))
        elif piece:
            if _SECRET in piece.lower():
                raise ValueError("an image was changed on its way through the template: write it without a filter")
            parts.append({"type": "text", "text": piece})
    return {**message, "content": parts}


def located(url: str, folder: str) -> str:
    """The URL with a relative path in it made one below the folder."""
    if url.startswith("data:") or SCHEME.match(url):
        return url
    path = os.path.expanduser(url)  # noqa: PTH111 - of a user that is not known it leaves the text as it is
    return path if path.startswith("/") else f"{folder}{path}"


def relocated(message: Message, folder: str) -> Message:
    """The message with the paths of its images made absolute."""
    content = message["content"]
    if not isinstance(content, list):
        return message
    return {**message, "content": [_relocated(part, folder) for part in content]}


def is_allowed(url: str, allowed: Sequence[str] | None) -> bool:
    """Whether an image may be read from there."""
    if allowed is None or url.startswith("data:"):
        return True
    place = _canonical(url)
    return any(place == begin or place.startswith(begin.rstrip("/") + "/") for begin in map(_canonical, allowed))


def shown(url: str) -> str:
    """The URL for a message: of a data URI, or of one that is very long, its beginning."""
    most = _SHOWN_OF_DATA if url.startswith("data:") else _SHOWN
    return repr(clip(url, most, "..."))


def _mark(value: object) -> str:
    url = url_of(value)
    if _END in url or _BEGIN[0] in url:
        raise ValueError(f"is {short(url)}, which names no image")
    return f"{_BEGIN}{url}{_END}"


def _relocated(part: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    if part["type"] != "image_url":
        return part
    image = part["image_url"]
    return {**part, "image_url": {**image, "url": located(image["url"], folder)}}


def _canonical(url: str) -> str:
    """Without ``..`` and links, by which an image could be said to lie where it does not."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if (scheme := SCHEME.match(url)) is None:
        return os.path.realpath(url)
    host, slash, path = url[scheme.end() :].partition("/")
    path = urllib.parse.unquote(path)  # %2e is a dot to whoever serves it
    return f"{scheme[1].lower()}://{host.lower()}{posixpath.normpath(slash + path) if slash else ''}"


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
