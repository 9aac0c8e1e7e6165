"""A server on the scripted engine, listening on a port of this machine, and clients of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openai import AzureOpenAI, OpenAI

from llmbatch.server import batches, working
from llmbatch.server.keys import Keys
from llmbatch.server.running import open_server
from llmbatch.server.serve import http_server, listen
from llmbatch.server.server import Server
from llmbatch.server.settings import ServerSettings

PATIENCE_SECONDS = 60.0
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(slots=True)
class Site:
    """A server that answers. ``stop`` ends it as SIGTERM does."""

    server: Server
    port: int
    http: uvicorn.Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def openai(self, key: str = "none", **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def azure(self, key: str = "none") -> AzureOpenAI:
        return AzureOpenAI(azure_endpoint=self.url, api_version="2025-03-01-preview", api_key=key, max_retries=0)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request, as it is: (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        self.http.should_exit = True
        self.thread.join(PATIENCE_SECONDS)


@dataclass(slots=True)
class Sites:
    """Makes servers in a folder of the test's own."""

    path: Path
    running: list[Site] = field(default_factory=list)

    def settings(
        self, script: Mapping[str, Any] | None = None, keys: str | None = None, **given: Any
    ) -> ServerSettings:
        """``script`` is the scripted engine's, ``keys`` the content of a file of API keys."""
        job = {"model": "demo", "engine": {"name": "scripted", "args": dict(script or {})}, **given.pop("job", {})}
        if keys is not None:
            place = self.path / "keys"
            place.write_text(keys, encoding="utf-8")
            given["keys"] = Keys.read(place)
        return ServerSettings(job=job, data=self.path / "data", port=0, **given)

    def start(self, script: Mapping[str, Any] | None = None, keys: str | None = None, **given: Any) -> Site:
        settings = self.settings(script, keys, **given)
        settings.prove()
        ready = threading.Event()
        made: list[Site] = []

        def run() -> None:
            try:
                listener = listen(settings)
                with listener, open_server(settings) as server:
                    site = Site(server, listener.getsockname()[1], http_server(server), threading.current_thread())
                    made.append(site)
                    ready.set()
                    site.http.run(sockets=[listener])
            finally:
                ready.set()

        threading.Thread(target=run, daemon=True).start()
        assert ready.wait(PATIENCE_SECONDS)
        assert made, "the server did not start: its thread says why"
        self.running.append(made[0])
        return made[0]


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path)
    yield made
    for site in made.running:
        site.stop()


@pytest.fixture
def site(sites: Sites) -> Site:
    """A server whose engine says the last message again."""
    return sites.start()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Starts servers that tests of one file share. Tests leave them as they are, but for files and batches of their own."""
    made: list[Sites] = []

    def start(*given: Any, **more: Any) -> Site:
        made.append(Sites(tmp_path_factory.mktemp("lasting")))
        return made[-1].start(*given, **more)

    yield start
    for sites in made:
        for site in sites.running:
            site.stop()


@pytest.fixture(scope="module")
def shared(lasting: Callable[..., Site]) -> Site:
    """A server that tests of one file share (see ``lasting``)."""
    return lasting()


@dataclass(slots=True)
class MovedClock:
    """What the queue and the runs of batches take for the time of day: that of the machine, and so many seconds."""

    ahead: float = 0.0

    def forward(self, *, hours: float) -> None:
        self.ahead += 3600 * hours

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """Moves the time by which batches expire, and no other."""
    clock = MovedClock()
    for module in (batches, working):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(batches, "_LOOK_SECONDS", 0.01)
    return clock


class Lines:
    """Inputs and results of batches, as lines."""

    @staticmethod
    def chat(custom_id: str, text: str, **body: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {
            "custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "demo", "messages": messages, **body},
        }  # fmt: skip

    @staticmethod
    def jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    @classmethod
    def many(cls, count: int) -> bytes:
        return cls.jsonl(cls.chat(f"row-{i}", f"text {i}") for i in range(count))

    @staticmethod
    def of(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a file; none where there is no file."""
        if file_id is None:
            return []
        return [json.loads(line) for line in client.files.content(file_id).content.splitlines()]

    @staticmethod
    def ids(found: Iterable[Mapping[str, Any]]) -> list[str]:
        return [line["custom_id"] for line in found]


def begin(client: OpenAI, content: bytes, endpoint: Any = "/v1/chat/completions", **given: Any) -> str:
    """Upload an input and create a batch of it."""
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    window = given.pop("completion_window", "24h")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=window, **given).id


def until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    end, pause = time.monotonic() + PATIENCE_SECONDS, 0.005
    while not good(seen := look()):
        assert time.monotonic() < end, f"it did not come to that: {seen}"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.1)  # to look costs more than what is waited for
    return seen


def ended(client: OpenAI, batch_id: str) -> Any:
    """The batch, once it is over."""
    return until(lambda: client.batches.retrieve(batch_id), lambda batch: batch.status in ENDED)


@pytest.fixture
def lines() -> type[Lines]:
    return Lines


@pytest.fixture(name="begin")
def begin_fixture() -> Callable[..., str]:
    return begin


@pytest.fixture(name="ended")
def ended_fixture() -> Callable[[OpenAI, str], Any]:
    return ended


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any], Callable[[Any], bool]], Any]:
    return until


@pytest.fixture(scope="session")
def examples() -> Path:
    return Path(__file__).parents[1] / "examples" / "azure" / "openai"
