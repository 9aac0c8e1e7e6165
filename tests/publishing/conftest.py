"""Finished runs to publish, and a stand-in for the hub that speaks what its client asks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmbatch import api
from llmbatch.publishing.publish import Published
from llmbatch.runs.session import run_job

Run = Callable[..., Path]


@pytest.fixture
def run(jobs: Any) -> Run:
    """Runs rows on the scripted engine, which echoes if no script says else, into a folder; sections are laid over the job's."""

    def run(rows: Sequence[Any], script: Any = None, *, name: str = "run", **sections: Any) -> Path:
        job = jobs.job(jobs.rows(rows, f"{name}.jsonl"), script, output=str(jobs.path / name), **sections)
        assert run_job(job).outcome == "finished"
        return jobs.path / name

    return run


@dataclass(slots=True)
class Publications:
    """Publishes runs into ``folder``, and reads what is there then."""

    folder: Path

    def __call__(self, *runs: Path, push_to: str | None = None, **settings: Any) -> Published:
        return api.publish(runs, self.folder, push_to=push_to, **settings)

    def rows(self, split: str = "train") -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        paths = sorted((self.folder / "data").glob(f"{split}-*.parquet"))
        return [row for path in paths for row in pq.read_table(path).to_pylist()]

    def dropped(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "dropped.jsonl").read_bytes().splitlines()]

    def card(self) -> str:
        return (self.folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def published(tmp_path: Path) -> Publications:
    return Publications(tmp_path / "dataset")


@dataclass(slots=True)
class Hub:
    """What the stand-in holds and was asked. ``answers`` are given in place of its own: status by the start of ``METHOD path``."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)  # uploaded and not yet part of a commit
    commits: list[list[dict[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # by question
    created: dict[str, Any] | None = None
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()  # noqa: S324

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Take over all of a commit."""
        self.commits.append(lines)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(head=True)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._file(head=False)
        elif self._may():
            siblings = [{"rfilename": name} for name in (".gitattributes", *self.hub.files)]
            self._json({"id": "me/set", "sha": self.hub.sha, "siblings": siblings, "private": False, "tags": []})

    def do_PUT(self) -> None:
        body = self._body()
        if self._may():
            self.hub.blobs[self.path.rpartition("/")[2]] = body
            self._json({})

    def do_POST(self) -> None:
        body = self._body()
        if not self._may():
            return
        hub, path = self.hub, self.path.partition("?")[0]
        if path == "/api/repos/create":
            hub.created = json.loads(body)
            self._json({"url": f"{hub.url}/datasets/me/set"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "shouldIgnore": False,
                            "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
                        }
                        for file in files
                    ]
                }
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self._json(
                {
                    "transfer": "basic",
                    "objects": [
                        {**each, "actions": {"upload": {"href": f"{hub.url}/upload/{each['oid']}"}}} for each in objects
                    ],
                }
            )
        elif "/commit/" in path:
            hub.commit([json.loads(line) for line in body.splitlines()])
            self._json(
                {"commitUrl": f"{hub.url}/datasets/me/set/commit/{hub.sha}", "commitOid": hub.sha, "success": True}
            )
        else:
            self._json({"error": "not known to the stand-in"}, 404)  # fmt: skip

    def _may(self) -> bool:
        """Take note of the question; answers it where the test has an answer of its own for it."""
        question = f"{self.command} {self.path}"
        self.hub.asked.append(question)
        if self.command != "PUT":  # the store behind the hub is given addresses that are signed
            self.hub.tokens[question] = self.headers.get("Authorization", "")
        status = next((status for start, status in self.hub.answers.items() if re.match(start, question)), None)
        if status is not None:
            self._json({"error": f"the stand-in says {status}"}, status)
        return status is None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, answer: Any, status: int = 200) -> None:
        self._answer(json.dumps(answer).encode(), status, {"Content-Type": "application/json"})

    def _file(self, *, head: bool) -> None:
        content = self.hub.files.get(self.path.partition("/resolve/")[2].partition("/")[2])
        if content is None:
            self._answer(b"", 404, {"X-Error-Code": "EntryNotFound"}, head=head)
        else:
            digest = hashlib.sha1(content).hexdigest()  # noqa: S324
            self._answer(content, 200, {"ETag": f'"{digest}"', "X-Repo-Commit": self.hub.sha}, head=head)

    def _answer(self, body: bytes, status: int, headers: Mapping[str, str], *, head: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without any repository, which the client takes for the real one.

    Files are uploaded by LFS: the uploader that the client prefers speaks with a second service.
    """
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = _Handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # once a day it asks by itself, without a token, which programs call themselves agents
    monkeypatch.setattr("huggingface_hub.utils._headers.detect_agent", lambda: None)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
