"""A file of zstd frames in, its content out; a file that was cut off is an error and not the end."""

from __future__ import annotations

from typing import Any, BinaryIO

import zstandard

_INPUT = 1 << 13  # bytes unpacked at a time: few, because hostile ones unpack to some ten thousand times as many
_WINDOW = 1 << 31  # as with zstd --long=31


class ZstdFrames:
    """All frames of a file, one after another. Reading raises ``ZstdError`` for damage, ``EOFError`` for a frame cut off.

    The library's own stream reader takes a frame that was cut off for the end of the file.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: Any = None  # the frame at hand; None between frames
        self._rest = b""  # packed bytes that were read and belong to the next frame
        self._ready = memoryview(b"")  # content that was unpacked and not yet handed out
        self._handed_out = 0

    def tell(self) -> int:
        return self._handed_out

    def readinto1(self, buffer: Any) -> int:
        """Some content, with at most a few reads of the file; 0 at its end."""
        while not self._ready:
            packed = self._rest or self._raw.read(_INPUT)
            self._rest = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("the zstd data ends in the middle of a frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
            self._ready = memoryview(self._frame.decompress(packed))
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._handed_out += count
        return count
