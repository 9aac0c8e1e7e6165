"""What a row may have for an image, and how it comes from a template's text into a message's parts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llmbatch.core.messages import image_part
from llmbatch.images.naming import is_allowed, located, marked, parted, url_of


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_the_bytes_of_a_column_are_an_image_and_no_path(encoded: Any, kind: str) -> None:
    read = encoded(size=(40, 40), kind=kind)
    coded = base64.b64encode(read).decode()
    for value in (coded, {"bytes": coded, "path": "lost.png"}):
        assert base64.b64decode(url_of(value).removeprefix("data:;base64,")) == read


def test_bytes_that_happen_to_be_text_are_an_image_too(encoded: Any) -> None:
    read = encoded("black", size=(3, 3), kind="PPM")
    value = {"bytes": read.decode(), "path": None}
    assert base64.b64decode(url_of(value).removeprefix("data:;base64,")) == read


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("a/b.png", "a/b.png"),
        ("/9j/short.jpg", "/9j/short.jpg"),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        ({"url": "https://a.example/b"}, "https://a.example/b"),
    ],
)
def test_a_path_and_a_url_are_as_they_are(value: Any, url: str) -> None:
    assert url_of(value) == url


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (" ", "is blank"),
        (7, "is of type integer"),
        ({"size": 3}, "is an object with ['size']"),
        ({"bytes": None, "path": None}, "is an object with"),
    ],
)
def test_what_names_no_image_is_said(value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at
        url_of(value)
    assert words in str(caught.value)


def test_a_text_is_cut_at_its_images_and_nothing_else_of_it_changes() -> None:
    content = f"One: {marked('a.png', several=False)}\nTwo:{marked(['b.png', 'c.png'], several=True)}"
    assert parted({"role": "user", "content": content})["content"] == [
        text("One: "), image_part("a.png"), text("\nTwo:"), image_part("b.png"), image_part("c.png"),
    ]  # fmt: skip


def test_a_text_without_images_stays_a_text() -> None:
    message = {"role": "user", "content": "a.png"}
    assert parted(message) is message


def test_a_mark_that_a_filter_changed_is_noticed() -> None:
    with pytest.raises(ValueError, match="without a filter"):
        parted({"role": "user", "content": marked("a.png", several=False).upper()})
    with pytest.raises(ValueError, match="without a filter"):
        parted({"role": "user", "content": marked("a.png", several=False)[:20] + marked("b.png", several=False)})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("a.png", "/data/a.png"),
        ("../a.png", "/data/../a.png"),
        ("/a.png", "/a.png"),
        ("https://h/a.png", "https://h/a.png"),
        ("data:,x", "data:,x"),
    ],
)
def test_a_relative_path_is_below_the_folder(url: str, place: str) -> None:
    assert located(url, "/data/") == place


def test_eight_digits_of_a_mark_in_a_text_are_its_own() -> None:
    digits = marked("a.png", several=False)[1:9]
    message = {"role": "user", "content": f"checksum {digits}{'0' * 24}"}
    assert parted(message) is message


@pytest.mark.parametrize("dots", ["..", "%2e%2e", ".%2E"])
def test_what_is_allowed_is_not_left_by_dots_however_they_are_written(dots: str) -> None:
    allowed = ["https://h/pictures/"]
    assert is_allowed("https://h/pictures/a%20b.png", allowed)
    assert not is_allowed(f"https://h/pictures/{dots}/private/a.png", allowed)
