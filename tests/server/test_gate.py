"""Who is let in, and what is refused before anything else looks at it."""

from __future__ import annotations

import json
import logging
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from llmbatch.core.errors import UsageError
from llmbatch.server.keys import Keys

ALICE, BOB = "alice-has-a-long-key", "bob-has-another-key"
KEYS = f"# who may\nalice {ALICE}\nbob {BOB} priority=-1 weight=2\n"


@pytest.fixture(scope="module")
def keyed(lasting) -> Any:
    """A server that wants a key, for tests that only ask it."""
    return lasting(keys=KEYS)


def test_an_owner_sees_its_own_files_and_batches_alone(sites, begin, ended, lines) -> None:
    site = sites.start(keys=KEYS)
    alice, bob = site.openai(ALICE), site.openai(BOB)
    batch = ended(alice, begin(alice, lines.many(2)))
    for file_id in (batch.input_file_id, batch.output_file_id):
        for call in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(file_id)
    with pytest.raises(openai.NotFoundError):
        bob.batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        bob.batches.cancel(batch.id)
    with pytest.raises(openai.BadRequestError):
        bob.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h")
    assert bob.files.list().data == bob.batches.list().data == []
    assert lines.ids(lines.of(alice, batch.output_file_id)) == ["row-0", "row-1"]


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/batches", "/v1/models", "/metrics", "/openapi.json", "/openai/batches"]
)
def test_without_a_known_key_nothing_is_told(keyed, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer alice"}, {"Authorization": f"Basic {ALICE}"}, {"api-key": "x" * 20}):
        status, _, body = keyed.ask("GET", path, headers=headers)
        assert status == 401
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert keyed.ask("GET", "/health")[0] == 200


def test_a_batch_has_at_most_the_priority_of_its_owner(sites, lines, begin) -> None:
    client = sites.start(keys=KEYS).openai(BOB)
    with pytest.raises(openai.BadRequestError) as caught:
        begin(client, lines.many(1))
    assert caught.value.param == "priority"
    begin(client, lines.many(1), extra_body={"priority": -1})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no API key"),
        ("alice\n", ":1: a line is NAME KEY"),
        ("alice short\n", "shorter than 16"),
        (f"alice {ALICE} priority=11\n", "is no option"),
        (f"alice {ALICE}\nalice {BOB} weight=2\n", ":2: alice has another"),
        (f"a/b {ALICE}\n", ":1: a line is NAME KEY"),
    ],
    ids=["empty", "no-key", "short", "priority", "contradiction", "name"],
)
def test_a_file_of_keys_that_cannot_be_used_is_refused_without_repeating_a_key(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        Keys.read(tmp_path / "keys")
    assert "short\n" not in str(caught.value)
    assert ALICE not in str(caught.value)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1"])
def test_without_keys_a_name_that_points_here_is_not_answered(shared, host: str) -> None:
    assert shared.ask("GET", "/v1/files", headers={"Host": host})[0] == 403


def test_without_keys_a_page_of_another_place_is_not_answered(shared) -> None:
    assert shared.ask("POST", "/v1/batches", b"{}", {"Origin": "https://evil.example"})[0] == 403
    assert shared.ask("GET", "/v1/files", headers={"Origin": shared.url})[0] == 200


@pytest.mark.parametrize("origin", ["http://[", "null", "http://localhost:1", ""])
def test_an_origin_that_is_none_is_one_of_another_place(shared, origin: str) -> None:
    assert shared.ask("GET", "/v1/files", headers={"Origin": origin})[0] == 403


def test_a_body_that_trickles_in_is_not_waited_for_without_end(sites) -> None:
    site = sites.start(body_seconds=0.2)
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        client.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        client.settimeout(0.02)
        answer = b""
        while not answer:  # a byte at a time, so that it is never silent
            client.sendall(b" ")
            with suppress(TimeoutError):
                answer = client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_body_in_an_encoding_is_not_unpacked(shared) -> None:
    status, headers, body = shared.ask("POST", "/v1/batches", b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert (status, headers["x-should-retry"]) == (415, "false")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_what_comes(sites) -> None:
    site = sites.start(max_body=1000)
    assert site.ask("POST", "/v1/batches", b" " * 1001)[0] == 413
    chunks = iter([b" " * 600, b" " * 600])
    assert site.ask("POST", "/v1/batches", chunks)[0] == 413


def test_a_client_that_falls_silent_is_told_so(sites) -> None:
    site = sites.start(body_seconds=0.2)
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        client.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: -1",
        "Content-Length: 5, 5",
        "Transfer-Encoding: chunked, identity",
        "X-A : b",
        "X-A: \x00",
    ],
    ids=["two-lengths", "length-and-chunked", "negative", "list", "encodings", "space", "nul"],
)
def test_games_with_headers_are_refused(shared, headers: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", shared.port))) as client:
        client.sendall(f"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{{}}   ".encode("latin-1"))
        client.settimeout(60)
        assert client.recv(10_000).split(b" ")[1] in (b"400", b"413")


def test_headers_without_an_end_are_not_kept(shared) -> None:
    with closing(socket.create_connection(("127.0.0.1", shared.port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            client.sendall((b"X-A: " + b"a" * 1000 + b"\r\n") * 10_000)


@pytest.mark.parametrize(
    "path",
    ["/v1/files/../../etc/passwd", "/v1/files/..%2f..%2fserver.sqlite/content", "/v1/files/.file/content",
     "/v1/batches/%00", "/v1/files/a%0d%0ab"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_leads_nowhere(shared, path: str) -> None:
    status, _, body = shared.ask("GET", path)
    assert status in (400, 404)
    assert "error" in json.loads(body)


def test_nothing_of_what_is_asked_is_logged(site, begin, ended, lines, caplog) -> None:
    client = site.openai()
    with caplog.at_level(logging.DEBUG):
        content = lines.jsonl([lines.chat("secret-id", "secret text"), {"custom_id": "x", "method": "secret"}])
        ended(client, begin(client, content, metadata={"secret": "secret"}))
        content = lines.jsonl([lines.chat("secret-id", "secret text"), lines.chat("b", "secret", secret="secret")])
        ended(client, begin(client, content))
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve("file-secret")
        site.ask("GET", "/secret?secret=secret", headers={"Authorization": "Bearer secret"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("llmbatch", "uvicorn"))]
    assert ours
    assert not [said for said in ours if "secret" in said]


def test_every_answer_has_the_id_of_its_request(shared) -> None:
    assert shared.ask("GET", "/health", headers={"X-Request-ID": "mine-1"})[1]["x-request-id"] == "mine-1"
    odd = shared.ask("GET", "/health", headers={"X-Request-ID": "a b"})[1]["x-request-id"]
    assert odd
    assert odd != "a b"


def test_what_goes_wrong_in_the_server_is_said_without_its_words(site, monkeypatch, caplog) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the prompt is secret")

    monkeypatch.setattr(site.server.store, "batches", fails)
    status, headers, body = site.ask("GET", "/v1/batches")
    assert (status, headers["x-should-retry"]) == (500, "false")
    assert b"secret" not in body
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("host", "keys"), [("0.0.0.0", False), ("::", False)])  # noqa: S104 - that it is refused
def test_without_keys_it_listens_to_this_machine_alone(sites, host: str, keys: bool) -> None:
    with pytest.raises(UsageError, match="--api-key-file"):
        sites.settings(host=host).prove()
    sites.settings(host=host, keys=KEYS).prove()


def test_the_store_of_a_server_is_for_its_user_alone(shared) -> None:
    assert shared.server.store.folder.stat().st_mode & 0o077 == 0
