"""Requests with images in; vLLM's own inputs for them out, as ``LLM.chat`` would make them of the same messages.

Workers fetch and decode the images ahead. What a model's processor makes of the pixels is made in the engine's thread, one prompt
after another, as vLLM's renderer is for one thread; with the engine core in its own process, that goes on meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from llmbatch.core.types import Failure, FailureKind, Request
from llmbatch.engines.vllm.render import Chat, refusal
from llmbatch.images.ahead import Loader
from llmbatch.images.base import ImageSettings

_AT_A_TIME = 4  # prompts that are processed between two steps of the engine, so that answers need not wait long


class Seen(NamedTuple):
    """What vLLM is given for a request, which now has all token ids; or why there is nothing."""

    request: Request
    prompt: dict[str, Any] | Failure


class Sight:
    """The images of one engine's requests. ``most`` requests with images are handed to vLLM at a time: it holds what was made of
    them until they are answered."""

    def __init__(self, llm: Any, chat: Chat, settings: ImageSettings, most: int) -> None:
        self._llm = llm
        self._chat = chat
        self._news = threading.Event()
        self._loader = Loader(settings, self._news.set)
        self.most = most

    def __len__(self) -> int:
        """How many requests have yet to come back."""
        return len(self._loader)

    def add(self, request: Request) -> None:
        """Begin to load its images."""
        self._loader.add(request)

    def take(self, room: int) -> Iterator[Seen]:
        """Some of those whose images are there, no more than there is room for."""
        self._news.clear()
        for request, pixels in self._loader.take(min(room, _AT_A_TIME)):
            yield self._seen(request, pixels)

    def wait(self, timeout: float) -> None:
        """Block until the images of one more are there."""
        self._news.wait(timeout)

    def clear(self) -> None:
        """Give up all that was added."""
        self._loader.clear()

    def close(self) -> None:
        self._loader.close()

    def _seen(self, request: Request, pixels: Mapping[str, Any] | Failure) -> Seen:
        if isinstance(pixels, Failure):
            return Seen(request, pixels)
        digests = {image.url: image.sha256 for image in request.prompt.images}
        try:
            # named by its digest, vLLM need not hash the pixels
            made = self._chat.made(
                self._llm,
                request.prompt,
                lambda url: {"type": "image_pil", "image_pil": pixels[url], "uuid": digests[url]},
            )
        except Exception as error:  # whatever a processor raises is about this prompt
            return Seen(request, refusal(error))
        ids = list(made["prompt_token_ids"])
        if request.partial:
            made["prompt_token_ids"] = [*ids, *request.partial]
        return Seen(replace(request, token_ids=array("I", ids)), dict(made))


def sees(llm: Any) -> bool:
    """Whether a started engine's model takes images."""
    processor = getattr(getattr(llm, "renderer", None), "mm_processor", None)
    return processor is not None and "image" in processor.info.get_supported_mm_limits()


def no_sight() -> Failure:
    """Why a request with images cannot be sent to a model without sight."""
    return Failure(FailureKind.REFUSED, "the prompt has images, and the model takes text alone")
