"""A hub of models for tests: a stand-in that answers the head of files, and a local cache of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from llmbatch.model.hub import see_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A stand-in. ``answers`` are (status, X-Error-Code) by the name of a model; any other name is not there."""

    url: str
    cache: Path
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)  # what a search of it finds

    def has(self, name: str) -> None:
        """Of a model in the local cache."""
        folder = self.cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        (folder / "snapshots" / COMMIT).mkdir(parents=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        self.hub.asked.append(f"{name}@{rest.partition('/')[0]}")
        status, code = self.hub.answers.get(name, (404, "RepoNotFound"))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models"):
            self.send_error(404)
            return
        body = json.dumps([{"id": name, "modelId": name, "_id": name} for name in self.hub.found]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def a_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """Asked for models in place of the real one; there is no token. Its cache lies in the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made = _Handler.hub = Hub(f"http://127.0.0.1:{server.server_port}", folder / "cache")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made.cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    see_model.cache_clear()
    yield made
    see_model.cache_clear()
    server.shutdown()
    server.server_close()
    thread.join()
