"""An image's URL in; its bytes, their digest, or its pixels out: the only place that reads and decodes images."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import urllib.parse
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import UsageError
from llmbatch.core.imports import extra
from llmbatch.core.remote_files import read_whole
from llmbatch.core.types import Image
from llmbatch.core.words import excerpt
from llmbatch.images.base import ImageError, ImageSettings
from llmbatch.images.naming import SCHEME, is_allowed, shown

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_SCHEMES = frozenset({"http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "file"})
# what decodes in this process and runs nobody else's program, as vLLM has it
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_KNOWN = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 and PPM"
_WHITE = (255, 255, 255)
_BEGINNING = 16  # bytes, enough for <!DOCTYPE html>


def content(url: str, settings: ImageSettings) -> bytes:
    """The bytes of an image. Raises ``ImageError``."""
    if not is_allowed(url, settings.allow):
        raise ImageError(f"{shown(url)} is not in engine.images.allow, and is not read")
    most = int(settings.max_mib * (1 << 20))
    if url.startswith("data:"):
        read = _of_data_uri(url)
    elif (scheme := SCHEME.match(url)) and scheme[1].lower() not in _SCHEMES:
        known = ", ".join(sorted(_SCHEMES))
        raise ImageError(f"{shown(url)}: images are not read by {scheme[1]}://; known are {known}, data URIs and paths")
    else:
        read = _of_place(url, most)
    if not read:
        raise ImageError(f"{shown(url)} is empty: it has no bytes")
    if len(read) > most:
        raise ImageError(
            f"{shown(url)} has more than engine.images.max_mib={settings.max_mib:g}: raise that if it is meant"
        )
    return read


def looked_at(image: Image, settings: ImageSettings) -> Image:
    """The image with the digest of its bytes, seen to begin as one that can be decoded. Raises ``ImageError``."""
    read = content(image.url, settings)
    _opened(image.url, read, settings).close()
    return image._replace(sha256=hashlib.sha256(read).hexdigest())


def pixels(image: Image, settings: ImageSettings) -> Pixels:
    """The image decoded, upright, in RGB on white where it is transparent, and made smaller where the settings say so.

    It is what vLLM makes of the same bytes. Raises ``ImageError``, also where the bytes are not those that were looked at.
    """
    from PIL import ImageOps

    pillow = _pillow()
    read = content(image.url, settings)
    if image.sha256 and hashlib.sha256(read).hexdigest() != image.sha256:
        raise _changed(image)
    opened: Pixels = _opened(image.url, read, settings)
    try:
        with contextlib.suppress(Exception):  # of a broken orientation the pixels are as good as ever
            opened = ImageOps.exif_transpose(opened)
        opened.load()
        if opened.mode != "RGB":
            opened = _in_rgb(opened)
        side = settings.longest_side
        if side is not None and max(opened.size) > side:
            opened.thumbnail((side, side), pillow.Resampling.LANCZOS)
    except Exception as error:  # a decoder may raise anything
        raise ImageError(f"{shown(image.url)} cannot be decoded: {_said(error)}; it may have been cut off") from error
    return opened


def as_data_uri(image: Image, settings: ImageSettings) -> str:
    """The image as a data URI with its type, for a server that cannot read where it lies. Raises ``ImageError``.

    It goes as it is, or as a PNG where the settings make it smaller.
    """
    read = content(image.url, settings)
    with _opened(image.url, read, settings) as opened:
        kind = opened.get_format_mimetype() or "application/octet-stream"
        smaller = settings.longest_side is not None and max(opened.size) > settings.longest_side
    if smaller:
        written = io.BytesIO()
        pixels(image, settings).save(written, "PNG")
        kind, read = "image/png", written.getvalue()
    elif image.sha256 and hashlib.sha256(read).hexdigest() != image.sha256:
        raise _changed(image)
    return f"data:{kind};base64,{base64.b64encode(read).decode()}"


def _changed(image: Image) -> ImageError:
    return ImageError(
        f"{shown(image.url)} was changed while the run went on: run the row again (llmbatch retry-failed)"
    )


@cache
def _pillow() -> Any:
    """Pillow's module ``Image``. Raises ``JobError`` where it is not installed."""
    pillow = extra("PIL.Image", "images", "an image")
    # it warns of images that are larger than it thinks right; ours are held against ``max_pixels``
    warnings.filterwarnings("ignore", category=pillow.DecompressionBombWarning)
    return pillow


@cache
def _decodable() -> list[str]:
    """Those of the formats that this Pillow has."""
    _pillow().init()
    return [name for name in _FORMATS if name in _pillow().OPEN]


def _of_data_uri(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{shown(url)} is no data URI: a comma is missing, after which the image begins")
    if not head.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        return base64.b64decode(urllib.parse.unquote(body), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{shown(url)}: its base64 is broken: {error}") from error


def _of_place(url: str, most: int) -> bytes:
    try:
        if SCHEME.match(url) and not url.startswith("file://"):
            return read_whole(url, most + 1)
        with Path(url.removeprefix("file://")).open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError as error:
        if SCHEME.match(url):
            raise ImageError(
                f"{shown(url)}: there is no such image, or it cannot be reached: {_said(error)}"
            ) from error
        raise ImageError(f"{shown(url)}: there is no such image (a path is relative to the input file)") from error
    except (OSError, UsageError, ValueError) as error:  # ValueError: a NUL in a path
        raise ImageError(f"{shown(url)} cannot be read: {_said(error)}") from error


def _opened(url: str, read: bytes, settings: ImageSettings) -> Any:
    """A ``PIL.Image`` of which only the header is read."""
    pillow = _pillow()
    try:
        opened = pillow.open(io.BytesIO(read), formats=_decodable())
    except pillow.UnidentifiedImageError as error:
        raise ImageError(
            f"{shown(url)} is no image that can be decoded, which are {_KNOWN}: {_seen(url, read)}"
        ) from error
    except pillow.DecompressionBombError as error:
        raise ImageError(f"{shown(url)} is too large: {_said(error)}") from error
    except Exception as error:  # a decoder may raise anything
        raise ImageError(f"{shown(url)} cannot be decoded: {_said(error)}") from error
    width, height = opened.size
    if width * height > settings.max_pixels:
        raise ImageError(
            f"{shown(url)} has {width:,} x {height:,} pixels, more than engine.images.max_pixels={settings.max_pixels:,}"
        )
    return opened


def _in_rgb(image: Any) -> Any:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    made = _pillow().new("RGB", image.size, _WHITE)
    made.paste(image, mask=image.getchannel("A"))
    return made


def _seen(url: str, read: bytes) -> str:
    """What was there in place of an image. Of a file on this machine, which a row may name at will, nothing is told."""
    if SCHEME.match(url) or url.startswith("data:"):
        return f"it begins with {excerpt(read[:_BEGINNING])!r}"
    return f"the file has {len(read):,} bytes"


def _said(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # of a server that cannot be reached, the reason
    return " ".join(str(error).split()) or type(error).__name__
