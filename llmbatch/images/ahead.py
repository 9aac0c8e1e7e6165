"""Requests with images in; the same with the images looked at, or decoded, out: by a few workers, ahead of the engine.

Pixels are large. What is decoded and not yet handed over is bounded, whatever number of requests there is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from llmbatch.core.messages import with_urls
from llmbatch.core.remote_files import is_http
from llmbatch.core.types import Failure, FailureKind, Image, Message, Prompt, Request
from llmbatch.images.base import ImageError, ImageSettings
from llmbatch.images.content import as_data_uri, looked_at, pixels

_IMAGES_A_WORKER = 2  # decoded images that may wait for the engine


class Loaded(NamedTuple):
    """A request with the pixels of its images by their URLs, or why it has none."""

    request: Request
    pixels: Mapping[str, Any] | Failure


class Looker:
    """Looks at the images of many prompts at a time: each gets the digest of its bytes. Threads end with the process."""

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def look(self, prompts: Sequence[Prompt]) -> list[tuple[Image, ...] | Failure]:
        """The images of each prompt with their digests, in order; the same URL is read once."""
        urls = dict.fromkeys(image.url for prompt in prompts for image in prompt.images if not image.sha256)
        found = dict(zip(urls, self._workers().map(self._seen, urls), strict=True))
        return [_with_digests(prompt.images, found) for prompt in prompts]

    def _seen(self, url: str) -> str | ImageError:
        try:
            return looked_at(Image(url), self._settings).sha256
        except ImageError as error:
            return error

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="llmbatch-look")
            return self._pool


class Loader:
    """Decodes the images of requests in the order in which they are added. Used by one thread, the engine's.

    ``news`` is called from a worker whenever a request is ready.
    """

    def __init__(self, settings: ImageSettings, news: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._news = news
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Request] = deque()
        self._running: dict[Future[Mapping[str, Any] | Failure], Request] = {}

    def __len__(self) -> int:
        """How many requests were added and not yet taken."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Load its images when there is room."""
        self._waiting.append(request)
        self._fill()

    def take(self, most: int) -> list[Loaded]:
        """Up to so many of those that are ready, of these the first added first; never blocks."""
        ready = [future for future in self._running if future.done()][: max(most, 0)]
        taken = [Loaded(self._running.pop(future), future.result()) for future in ready]
        self._fill()
        return taken

    def clear(self) -> None:
        """Give up all that was added."""
        self._waiting.clear()
        for future in self._running:
            future.cancel()
        self._running.clear()

    def close(self) -> None:
        """End the workers."""
        self.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._settings.workers * (1 + _IMAGES_A_WORKER):
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="llmbatch-image")
            request = self._waiting.popleft()
            future = self._pool.submit(load, request.prompt, self._settings)
            self._running[future] = request
            future.add_done_callback(lambda _: self._news())


def load(prompt: Prompt, settings: ImageSettings) -> Mapping[str, Any] | Failure:
    """The pixels of a prompt's images by their URLs, or why there are none. Never raises for what is in an image."""
    found = {}
    for number, image in enumerate(prompt.images, 1):
        try:
            if image.url not in found:
                found[image.url] = pixels(image, settings)
        except ImageError as error:
            return _failure(error, number, prompt.images)
    return found


def for_server(prompt: Prompt, settings: ImageSettings) -> tuple[Message, ...] | Failure:
    """The prompt's messages for a server elsewhere: images as data URIs, those of web addresses as they are named.

    Or why that cannot be. It reads files: call it from a worker.
    """
    urls = {}
    for number, image in enumerate(prompt.images, 1):
        if is_http(image.url) and settings.longest_side is None:
            continue  # the server reads it itself
        try:
            urls[image.url] = as_data_uri(image, settings)
        except ImageError as error:
            return _failure(error, number, prompt.images)
    return with_urls(prompt.messages or (), urls)


def _with_digests(images: Sequence[Image], found: Mapping[str, str | ImageError]) -> tuple[Image, ...] | Failure:
    looked: list[Image] = []
    for number, image in enumerate(images, 1):
        seen = image.sha256 or found[image.url]
        if isinstance(seen, ImageError):
            return _failure(seen, number, images)
        looked.append(image._replace(sha256=seen))
    return tuple(looked)


def _failure(error: ImageError, number: int, images: Sequence[Image]) -> Failure:
    which = "the image" if len(images) == 1 else f"image {number} of {len(images)}"
    place = images[number - 1].place
    return Failure(FailureKind.IMAGE, f"{place}{': ' if place else ''}{which} {error}")
