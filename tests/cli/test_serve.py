"""``llmbatch serve`` as a process: it says where it is, ends when it is told to, and refuses what cannot be served."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from openai import APIError, OpenAI

from llmbatch.audit.audit import audit

PATIENCE_SECONDS = 60
ENDED = ("completed", "failed", "expired", "cancelled")


class Serving:
    """The command, as often as it is started; its processes end with the test."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch.cli", "serve", "--data", str(self.data), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def refused(self, *arguments: str) -> str:
        """What it says that does not start."""
        process = self.start(*arguments)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 2, said
        return said


@pytest.fixture
def serving(tmp_path: Path, forked: None) -> Iterator[Serving]:
    made = Serving(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


DEMO = ("--model", "demo", "--engine", "scripted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_when_it_is_told_to(serving: Serving, number: signal.Signals) -> None:
    process = serving.start(*DEMO, "--port", "0")
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "llmbatch serves demo at http://127.0.0.1:" in said
    assert "no API keys" in process.stdout.readline()
    port = int(said.split("127.0.0.1:")[1].split("/")[0])
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
    assert (serving.data / "lock").exists()
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert not (serving.data / "lock").exists()


def test_a_server_that_is_killed_leaves_no_engine_and_goes_on_with_its_batch(serving: Serving) -> None:
    given = (
        *DEMO,
        "--port",
        "0",
        "--set",
        "run.window=16",
        "--set",
        "engine.hosted=true",
        "--set",
        "engine.args.concurrency=4",
    )
    first = serving.start(*given, "--set", "engine.args.latency=0.05")
    client = client_of(first)
    file = client.files.create(file=("input.jsonl", many(200)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    until(lambda: counts(client, batch.id) > 0)
    started = psutil.Process(first.pid).children(recursive=True)
    assert started  # the engine's process among them
    first.kill()
    _, left = psutil.wait_procs(started, timeout=PATIENCE_SECONDS)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
    client.close()
    second = serving.start(*given)
    client = client_of(second)
    until(lambda: client.batches.retrieve(batch.id).status in ENDED)
    state = client.batches.retrieve(batch.id)
    assert state.output_file_id is not None
    answers = client.files.content(state.output_file_id).content.splitlines()
    assert [json.loads(line)["custom_id"] for line in answers] == [f"row-{number}" for number in range(200)]
    assert audit(serving.data / "batches" / batch.id / "run").complete
    client.close()


def client_of(process: subprocess.Popen[str]) -> OpenAI:
    """A client of a server that was just started."""
    assert process.stdout is not None
    port = process.stdout.readline().split("127.0.0.1:")[1].split("/")[0]
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="a-secret-key", max_retries=0)


def until(good: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not good():
        assert time.monotonic() < end, f"it did not come to that in {PATIENCE_SECONDS} s"
        time.sleep(0.01)


def counts(client: OpenAI, batch_id: str) -> int:
    """How many rows of a batch are answered."""
    found = client.batches.retrieve(batch_id).request_counts
    return 0 if found is None else found.completed


def many(rows: int) -> bytes:
    def line(number: int) -> str:
        body = {"model": "demo", "messages": [{"role": "user", "content": f"text {number}"}]}
        return json.dumps({"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})

    return "".join(line(number) + "\n" for number in range(rows)).encode()


def test_what_it_prints_has_nothing_of_what_is_asked(serving: Serving) -> None:
    rules = '[{"when": {"contains": "fails"}, "fail": "the engine repeats a-secret"}]'
    process = serving.start(*DEMO, "--port", "0", "--verbose", "--set", f"engine.args.rules={rules}")
    client = client_of(process)
    lines = b""
    for name in ("a-secret-one", "a-secret-that-fails"):
        messages = [{"role": "user", "content": name}]
        with contextlib.suppress(APIError):
            client.chat.completions.create(model="demo", messages=messages)  # type: ignore[arg-type]
        body = {"model": "demo", "messages": messages, "metadata": {"a-secret": name}}
        line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines += json.dumps(line).encode() + b"\n"
    for content in (lines, b"a-secret\n"):
        file = client.files.create(file=("a-secret.jsonl", content), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a-secret": "x"}
        )
        until(lambda batch=batch: client.batches.retrieve(batch.id).status in ENDED)  # type: ignore[misc]
    assert client.batches.retrieve(batch.id).status == "failed"
    with pytest.raises(APIError):
        client.files.retrieve("file-a-secret")
    client.close()
    process.send_signal(signal.SIGTERM)
    said, logged = process.communicate(timeout=PATIENCE_SECONDS)
    assert "POST /v1/batches 200" in logged
    assert "GET /v1/files/{file_id} 404" in logged
    assert "a-secret" not in said + logged


def test_what_cannot_be_served_is_refused_before_it_listens(serving: Serving, tmp_path: Path) -> None:
    assert "--api-key-file" in serving.refused(*DEMO, "--host", "0.0.0.0")  # noqa: S104
    assert "model is missing" in serving.refused("--engine", "scripted")
    assert "comes with each batch" in serving.refused(*DEMO, "--set", "input.path=x")
    assert "cannot be read" in serving.refused(*DEMO, "--api-key-file", str(tmp_path / "none"))
    assert "10G" in serving.refused(*DEMO, "--max-bytes", "lots")
    assert "cannot listen" in serving.refused(*DEMO, "--host", "203.0.113.1", "--api-key-file", str(keys(tmp_path)))
    assert not serving.data.exists()


def keys(folder: Path) -> Path:
    place = folder / "keys"
    place.write_text("alice alice-has-a-long-key\n")
    return place
