"""Images are read, and what is wrong with one is said; what comes of it is what vLLM would have made."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from llmbatch.core.types import Image
from llmbatch.images.base import ImageError, ImageSettings
from llmbatch.images.content import as_data_uri, content, looked_at, pixels

SETTINGS = ImageSettings()


def problem(url: str, settings: ImageSettings = SETTINGS) -> str:
    with pytest.raises(ImageError) as caught:
        pixels(looked_at(Image(url), settings), settings)
    return str(caught.value)


@pytest.fixture(scope="module")
def server(encoded: Any) -> Iterator[str]:
    """A web server: an image, a page, one that may not be had, one that never ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/red.png?size=8":
                self._send(200, encoded())
            elif self.path == "/page":
                self._send(200, b"<!DOCTYPE html><p>log in")
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"\0" * 65536)
                except OSError:
                    pass
            else:
                self._send(403 if self.path == "/secret" else 404, b"no")

        def do_HEAD(self) -> None:
            self._send(405, b"")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


def test_a_path_a_file_url_and_data_uris_name_the_same_bytes(red: Path) -> None:
    read = red.read_bytes()
    coded = base64.b64encode(read).decode()
    percent = "".join(f"%{byte:02x}" for byte in read)
    for url in (
        str(red),
        f"file://{red}",
        f"data:image/png;base64,{coded}",
        f"data:;base64,{coded}",
        f"data:,{percent}",
    ):
        assert content(url, SETTINGS) == read
        assert looked_at(Image(url), SETTINGS).sha256 == hashlib.sha256(read).hexdigest()


def test_a_web_server_need_not_answer_head_nor_give_parts(server: str, encoded: Any) -> None:
    assert content(f"{server}/red.png?size=8", SETTINGS) == encoded()


@pytest.mark.parametrize(
    ("path", "words"),
    [("/page", "it begins with '<!DOCTYPE html>"), ("/secret", "403"), ("/none", "there is no such image")],
)
def test_what_a_server_answers_instead_is_said(server: str, path: str, words: str) -> None:
    assert words in problem(server + path)


def test_of_a_file_that_is_too_long_no_more_is_read_than_is_allowed(server: str, red: Path) -> None:
    settings = ImageSettings(max_mib=0.5)
    assert "has more than engine.images.max_mib=0.5" in problem(f"{server}/endless", settings)
    red.write_bytes(b"\0" * (1 << 20))
    assert "has more than engine.images.max_mib=0.5" in problem(str(red), settings)


def test_a_server_that_is_not_there_is_said_to_be(server: str) -> None:
    assert "there is no such image, or it cannot be reached: Cannot connect" in problem("http://127.0.0.1:9/x.png")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/nowhere/red.png", "there is no such image (a path is relative to the input file)"),
        ("/", "cannot be read: "),
        ("a\0b", "cannot be read: embedded null byte"),
        ("ftp://host/red.png", "images are not read by ftp://; known are abfs"),
        ("data:image/png;base64", "a comma is missing"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,@@", "its base64 is broken"),
        ("data:image/svg+xml,<svg/>", "is no image that can be decoded, which are PNG"),
        ("data:,%25!PS-Adobe-3.0 EPSF-3.0", "is no image that can be decoded"),
    ],
)
def test_what_is_no_image_is_said_with_what_was_seen(url: str, words: str) -> None:
    assert words in problem(url)


def test_an_image_that_was_cut_off_is_found_when_it_is_decoded(tmp_path: Path, encoded: Any) -> None:
    path = tmp_path / "cut.jpg"
    whole = encoded(size=(200, 200), kind="JPEG")
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in problem(str(path))


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path, encoded: Any) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(color=0, size=(9000, 9000), mode="1"))
    assert path.stat().st_size < 20_000
    assert "has 9,000 x 9,000 pixels, more than engine.images.max_pixels=50,000,000" in problem(str(path))
    path.write_bytes(encoded(color=0, size=(20_000, 10_000), mode="1"))
    assert "is too large: " in problem(str(path))


def test_an_image_that_is_another_by_now_is_not_taken_for_the_one_that_was_looked_at(red: Path, encoded: Any) -> None:
    image = looked_at(Image(str(red)), SETTINGS)
    red.write_bytes(encoded("blue"))
    with pytest.raises(ImageError, match="was changed while the run went on"):
        pixels(image, SETTINGS)
    with pytest.raises(ImageError, match="was changed while the run went on"):
        as_data_uri(image, SETTINGS)


def test_images_outside_of_what_is_allowed_are_refused(tmp_path: Path, red: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(red)
    settings = ImageSettings(allow=(str(inside), "https://a.example/pictures/"))
    for url in (str(red), f"file://{red}", f"{inside}/../red.png", str(inside / "link.png"), f"{inside}2/x.png",
                "https://a.example/other.png", "https://a.example.evil/pictures/x.png",
                "https://a.example/pictures/../x.png", "http://a.example/pictures/x.png"):  # fmt: skip
        assert "is not in engine.images.allow" in problem(url, settings)
    (inside / "red.png").write_bytes(red.read_bytes())
    looked_at(Image(str(inside / "red.png")), settings)
    looked_at(Image(f"data:;base64,{base64.b64encode(red.read_bytes()).decode()}"), settings)


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("L", 7, (7, 7, 7)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("LA", (9, 255), (9, 9, 9)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_pixels_are_rgb_on_white(tmp_path: Path, encoded: Any, mode: str, color: Any, seen: tuple[int, ...]) -> None:
    path = tmp_path / "any.png"
    path.write_bytes(encoded(color, mode=mode))
    made = pixels(Image(str(path)), SETTINGS)
    assert made.mode == "RGB"
    assert made.getpixel((0, 0)) == seen


def test_an_image_stands_upright_and_is_made_smaller(tmp_path: Path, encoded: Any) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(size=(40, 20), kind="JPEG", exif=exif))
    assert pixels(Image(str(path)), SETTINGS).size == (20, 40)
    assert pixels(Image(str(path)), ImageSettings(longest_side=10)).size == (5, 10)
    assert pixels(Image(str(path)), ImageSettings(longest_side=100)).size == (20, 40)


def test_a_data_uri_says_its_type_and_holds_the_bytes_or_a_smaller_image(red: Path) -> None:
    coded = base64.b64encode(red.read_bytes()).decode()
    assert as_data_uri(Image(str(red)), SETTINGS) == f"data:image/png;base64,{coded}"
    assert as_data_uri(Image(f"data:;base64,{coded}"), SETTINGS) == f"data:image/png;base64,{coded}"
    smaller = as_data_uri(Image(str(red)), ImageSettings(longest_side=4))
    assert pixels(Image(smaller), SETTINGS).size == (4, 3)
