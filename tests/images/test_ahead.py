"""Images are looked at and decoded by workers, a bounded number ahead."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.messages import image_part
from llmbatch.core.types import Failure, FailureKind, Image, Prompt, Request, RequestKey, Sampling
from llmbatch.images import ahead
from llmbatch.images.ahead import Loader, Looker, for_server
from llmbatch.images.base import ImageError, ImageSettings


def prompt(*urls: str) -> Prompt:
    message = {"role": "user", "content": [image_part(url, "low") for url in urls]}
    return Prompt(messages=(message,), images=tuple(Image(url, place="rows.jsonl:3, row 'a'") for url in urls))


def request(index: int, *urls: str) -> Request:
    return Request(RequestKey(index), prompt(*urls), Sampling())


def test_every_prompt_gets_its_digests_or_its_failure_and_text_nothing(red: Path) -> None:
    looker = Looker(ImageSettings())
    found, failed, text = looker.look([prompt(str(red), str(red)), prompt(str(red), "/none.png"), Prompt(text="x")])
    assert not isinstance(found, Failure)
    assert [image.url for image in found] == [str(red)] * 2
    assert len({image.sha256 for image in found}) == 1
    assert isinstance(failed, Failure)
    assert failed.kind is FailureKind.IMAGE
    assert failed.message.startswith("rows.jsonl:3, row 'a': image 2 of 2 '/none.png': there is no such image")
    assert text == ()


def test_of_a_thousand_requests_only_a_few_are_decoded_before_the_engine_takes_one(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    all_begun = threading.Semaphore(0)

    def counted(image: Image, _: ImageSettings) -> str:
        begun.append(image.url)
        all_begun.release()
        return image.url

    monkeypatch.setattr(ahead, "pixels", counted)
    loader = Loader(ImageSettings(workers=2))
    for index in range(1000):
        loader.add(request(index, f"{index}.png"))
    for _ in range(6):
        assert all_begun.acquire(timeout=60)
    assert len(begun) == 6
    assert len(loader) == 1000
    taken = []
    while len(taken) < 10:
        taken += loader.take(10 - len(taken))
    assert len({each.request.key for each in taken}) == 10
    assert len(loader) == 990
    loader.close()
    assert len(loader) == 0


def test_whoever_waits_hears_of_images_that_are_there(red: Path) -> None:
    news = threading.Event()
    loader = Loader(ImageSettings(), news.set)
    loader.add(request(0, str(red)))
    assert news.wait(60)
    (loaded,) = loader.take(5)
    assert not isinstance(loaded.pixels, Failure)
    assert loaded.pixels[str(red)].size == (8, 6)
    loader.close()


def test_a_broken_image_is_a_failure_of_its_request_alone(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image, _: ImageSettings) -> Any:
        if "bad" in image.url:
            raise ImageError("is broken")
        return image.url

    monkeypatch.setattr(ahead, "pixels", broken)
    loader = Loader(ImageSettings())
    for index, url in enumerate(["good", "bad", "fine"]):
        loader.add(request(index, url))
    taken: list[Any] = []
    while len(taken) < 3:
        taken += loader.take(3)
    said = {each.request.key.index: each.pixels for each in taken}
    assert said[0] == {"good": "good"}
    assert said[1] == Failure(FailureKind.IMAGE, "rows.jsonl:3, row 'a': the image is broken")
    loader.close()


def test_a_server_is_given_the_bytes_but_of_web_addresses(red: Path) -> None:
    messages = for_server(prompt(str(red), "https://a.example/b.png"), ImageSettings())
    assert not isinstance(messages, Failure)
    first, second = messages[0]["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert first["image_url"]["detail"] == "low"
    assert second == image_part("https://a.example/b.png", "low")
    missing = for_server(prompt("/none.png"), ImageSettings())
    assert isinstance(missing, Failure)
    assert "there is no such image" in missing.message
