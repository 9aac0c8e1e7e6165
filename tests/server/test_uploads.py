"""Files on their way in: whole or not at all, whatever becomes of the client, the disk or the form."""

from __future__ import annotations

import errno
import json
import resource
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

BOUNDARY = "xyz"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, content: bytes, **options: str) -> bytes:
    given = "".join(f'; {key}="{value}"' for key, value in options.items())
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{given}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


PURPOSE = part("purpose", b"batch")
FILE = part("file", b"{}\n", filename="a.jsonl")


def leftovers(site: Any) -> list[Path]:
    folder = site.server.store.folder
    return [*(folder / "uploads").iterdir(), *(folder / "files").iterdir()]


@pytest.fixture(scope="module")
def small(lasting) -> Any:
    """A server that takes small files alone, for tests that leave nothing there."""
    return lasting(max_bytes=2000)


@pytest.mark.parametrize("parts", [(PURPOSE, FILE), (FILE, PURPOSE)], ids=["purpose-first", "file-first"])
def test_the_parts_come_in_any_order(shared, parts: tuple[bytes, ...]) -> None:
    status, _, body = shared.ask("POST", "/v1/files", form(*parts), TYPE)
    assert status == 200, body
    assert json.loads(body)["bytes"] == 3


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (form(FILE), TYPE, 400),
        (form(PURPOSE), TYPE, 400),
        (form(part("purpose", b"fine-tune"), FILE), TYPE, 400),
        (form(PURPOSE, FILE, FILE), TYPE, 400),
        (form(PURPOSE, part("other", b"x", filename="b")), TYPE, 400),
        (form(PURPOSE, FILE)[:-20], TYPE, 400),
        (b"no form", TYPE, 400),
        (form(PURPOSE, FILE), {"Content-Type": "application/json"}, 400),
        (form(PURPOSE, FILE), {"Content-Type": "multipart/form-data"}, 400),
        (form(*[part(f"p{i}", b"") for i in range(40)]), TYPE, 400),
        (form(PURPOSE, part("big", b"x" * 100_000), FILE), TYPE, 400),
        (form(PURPOSE, part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"1"), FILE), TYPE, 400),
        (form(PURPOSE, part("file", b"x" * 2001, filename="a")), TYPE, 413),
        (b"", TYPE, 400),
    ],
    ids=[
        "no-purpose", "no-file", "purpose", "two-files", "other-file", "cut-off", "no-form", "json", "no-boundary",
        "many-parts", "long-field", "expiry", "too-large", "empty",
    ],
)  # fmt: skip
def test_a_form_that_is_none_leaves_nothing(small, body: bytes, headers: dict[str, str], status: int) -> None:
    seen, answer, said = small.ask("POST", "/v1/files", body, headers)
    assert (seen, answer["x-should-retry"]) == (status, "false"), said
    assert json.loads(said)["error"]["message"]
    assert leftovers(small) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\\\a\\\\b.jsonl", "b.jsonl"), ("a\tb.jsonl", "a\\tb.jsonl"), ("", "file"),
        ("x" * 999, "x" * 254 + "…"),
    ],
    ids=["path", "windows", "control", "none", "long"],
)  # fmt: skip
def test_the_name_of_a_file_is_a_text_and_no_place(site, given: str, kept: str) -> None:
    body = form(PURPOSE, part("file", b"{}", filename=given))
    file = json.loads(site.ask("POST", "/v1/files", body, TYPE)[2])
    assert file["filename"] == kept
    assert [place.name for place in leftovers(site)] == [file["id"]]
    assert site.ask("GET", f"/v1/files/{file['id']}/content")[2] == b"{}"


def test_a_client_that_goes_away_leaves_nothing(site, until) -> None:
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n"
        head += f"Content-Type: {TYPE['Content-Type']}\r\n\r\n"
        client.sendall(head.encode() + PURPOSE + FILE[:-2] + b"x" * 100_000)
        until(lambda: leftovers(site), bool)
    assert until(lambda: leftovers(site), lambda left: not left) == []


def test_a_disk_that_is_full_in_the_middle_is_said_and_leaves_nothing(site, monkeypatch) -> None:
    def full(self: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("llmbatch.server.uploads._Parts.write", full)
    client = site.openai()
    with pytest.raises(openai.InternalServerError) as caught:
        client.files.create(file=("a.jsonl", b"x" * (3 << 20)), purpose="batch")
    assert (caught.value.status_code, caught.value.code) == (507, "insufficient_storage")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert leftovers(site) == []
    monkeypatch.undo()
    assert client.files.create(file=("a.jsonl", b"x"), purpose="batch").bytes == 1


def test_an_upload_is_not_held_in_memory(site) -> None:
    size, block = 128 << 20, b"x" * (1 << 20)
    head = part("file", b"", filename="big.jsonl")[:-2]
    tail = b"\r\n" + PURPOSE + f"--{BOUNDARY}--\r\n".encode()

    def body() -> Any:
        yield head
        for _ in range(size // len(block)):
            yield block
        yield tail

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    length = {"Content-Length": str(len(head) + size + len(tail))}
    status, _, said = site.ask("POST", "/v1/files", body(), {**TYPE, **length})
    assert (status, json.loads(said)["bytes"]) == (200, size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
