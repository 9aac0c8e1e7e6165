"""Clients that are slow on purpose, or go away in the middle: each costs the server a while, and nobody else anything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbatch.server import gate, serve
from llmbatch.server.fronts import google_uploads

SIZE = 64 << 20  # more than all buffers on the way hold
_GOOGLE = {"x-goog-api-client": "google-genai-sdk/3", "content-type": "application/json"}


@contextmanager
def connected(site: Any, buffer: int | None = None) -> Iterator[socket.socket]:
    with closing(socket.socket()) as client:
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(60)
        client.connect(("127.0.0.1", site.port))
        yield client


def connections(site: Any) -> int:
    return len(site.http.server_state.connections)


def is_open(path: Path) -> bool:
    """Whether this process, which is the server, has the file open."""
    return any(_target(each) == str(path) for each in Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:
        return None


@pytest.fixture
def stored(site) -> Path:
    """A large file in the store of the site."""
    with site.openai() as client:
        file = client.files.create(file=("large.jsonl", b"x" * SIZE), purpose="batch")
    place: Path = site.server.store.content(file.id)
    return place


def asks_for(file: Path) -> bytes:
    return f"GET /v1/files/{file.name}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize(
    "begun", [b"", b"GET /health HTTP/1.1\r\nHost: local", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "],
    ids=["nothing", "in-a-header", "in-another"],
)  # fmt: skip
def test_headers_that_do_not_come_are_not_waited_for(site, until, monkeypatch, begun: bytes) -> None:
    monkeypatch.setattr(serve, "_HEADER_SECONDS", 0.2)
    with connected(site) as client:
        client.sendall(begun)
        assert client.recv(100) == b""
    assert until(lambda: connections(site), lambda count: not count) == 0
    assert site.ask("GET", "/health")[0] == 200


def test_headers_that_trickle_in_have_no_more_time_than_others(site, until, monkeypatch) -> None:
    monkeypatch.setattr(serve, "_HEADER_SECONDS", 0.2)
    with connected(site) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        client.settimeout(0.01)
        assert until(lambda: answered(client, b"a"), lambda said: said is not None) == b""
    assert until(lambda: connections(site), lambda count: not count) == 0


def answered(client: socket.socket, more: bytes) -> bytes | None:
    """What comes once more was sent: nothing yet, or the end (``b""``)."""
    try:
        client.sendall(more)
        return client.recv(100)
    except TimeoutError:
        return None
    except OSError:
        return b""


def test_what_a_client_does_not_take_is_not_kept_for_it(site, stored, until, monkeypatch, caplog) -> None:
    with monkeypatch.context() as hasty, connected(site, buffer=4096) as client:
        hasty.setattr(gate, "_SEND_SECONDS", 0.2)
        client.sendall(asks_for(stored))
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: is_open(stored) or not connections(site), bool)
        assert until(lambda: is_open(stored), lambda opened: not opened) is False
        assert until(lambda: connections(site), lambda count: not count) == 0
    assert site.ask("GET", f"/v1/files/{stored.name}/content")[2] == b"x" * SIZE
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("headers", "more"), [("", b""), ("Connection: close\r\n", b""), ("", b"GET /health HTTP/1.1\r\n")],
    ids=["kept", "to-be-closed", "asks-again"],
)  # fmt: skip
def test_an_answer_that_is_written_at_once_and_not_taken_is_dropped_in_the_end(
    site, until, monkeypatch, headers: str, more: bytes
) -> None:
    monkeypatch.setattr(serve, "_LAST_SECONDS", 0.2)
    monkeypatch.setattr(site.http.config, "timeout_keep_alive", 60 if more else 0)
    monkeypatch.setattr(site.server.metrics, "text", lambda: b"x" * SIZE)
    with connected(site, buffer=4096) as client:
        client.sendall(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        until(lambda: site.http.server_state.total_requests, lambda answered: answered == 1)
        monkeypatch.setattr(serve, "_HEADER_SECONDS", 0.2)
        if more:
            client.sendall(more)
        assert until(lambda: connections(site), lambda count: not count) == 0
    assert site.ask("GET", "/health")[0] == 200


def test_a_client_that_goes_away_during_a_download_costs_nothing(site, stored, until, caplog) -> None:
    with connected(site, buffer=4096) as client:
        client.sendall(asks_for(stored))
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: is_open(stored), bool)
    assert until(lambda: is_open(stored), lambda opened: not opened) is False
    assert until(lambda: connections(site), lambda count: not count) == 0
    assert site.ask("GET", f"/v1/files/{stored.name}/content")[2] == b"x" * SIZE
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_client_that_goes_away_during_an_upload_is_no_fault_of_the_server_s(site, until, caplog) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n"
    uploads = site.server.store.folder / "uploads"
    with connected(site) as client:
        client.sendall(
            head + b'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 100_000
        )
        until(lambda: list(uploads.iterdir()), bool)
    assert until(lambda: connections(site), lambda count: not count) == 0
    assert until(lambda: list(uploads.iterdir()), lambda left: not left) == []
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_upload_of_google_s_that_nobody_goes_on_with_is_dropped(site, monkeypatch) -> None:
    def announced() -> str:
        _, headers, _ = site.ask("POST", "/upload/v1/files", b"{}", _GOOGLE)
        return "/" + headers["x-goog-upload-url"].split("/", 3)[3]

    def send(path: str, offset: int, command: str) -> tuple[int, Any]:
        given = {**_GOOGLE, "x-goog-upload-offset": str(offset), "x-goog-upload-command": command}
        status, _, said = site.ask("POST", path, b"{}\n", given)
        return status, json.loads(said) if said else None

    uploads = site.server.store.folder / "uploads"
    left, kept = announced(), announced()
    assert send(left, 0, "upload")[0] == send(kept, 0, "upload")[0] == 200
    assert len(list(uploads.iterdir())) == 2
    monkeypatch.setattr(google_uploads, "_PENDING_SECONDS", 0.0)
    assert send(kept, 3, "upload, finalize")[0] == 200  # nobody came meanwhile
    announced()
    assert list(uploads.iterdir()) == []
    status, said = send(left, 3, "upload, finalize")
    assert (status, said["error"]["status"]) == (404, "NOT_FOUND")
