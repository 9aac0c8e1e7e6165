"""``llmbatch serve`` with OpenAI's real clients, OpenAI's and Azure's: rows of ``RESULTS.md``. The engine is the scripted one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from openai import AzureOpenAI, OpenAI
from shown import EXAMPLES, ROOT, Shown, tried, version_of

OPENAI, AZURE = "OpenAI", "Azure OpenAI"
LINES = EXAMPLES / "azure" / "openai"
ENDED = ("completed", "failed", "expired", "cancelled")
_SECONDS = 120.0
_CODES = {
    "duplicate_custom_id": 2, "empty_file": None, "invalid_json_line": 2, "invalid_request": 1, "model_mismatch": 2,
    "url_mismatch": 2,
}  # fmt: skip


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="llmbatch-server-") as name:
        claims: list[tuple[str, str, str, Callable[[Path], str]]] = [
            (OPENAI, "upload, batch, poll: counts 3/2/1, output and error file as expected", "openai", _batch),
            (OPENAI, "each invalid file fails with its code and line, and no row runs", "openai", _invalid),
            (
                OPENAI,
                "cancelled in the middle of 1,000 rows: every line in one of the files, none twice",
                "openai",
                _cancelled,
            ),
            (
                OPENAI,
                "killed (-9) in the middle, started again: the batch completes, no row is run twice",
                "openai",
                _killed,
            ),
            (
                OPENAI,
                "vLLM's engine, the demo model: killed with its server in mid-batch, started again, the batch completes",
                "openai",
                _killed_with_vllm,
            ),
            (OPENAI, "live: chat, completions and responses, whole and streamed, beside a batch", "openai", _live),
            (AZURE, "AzureOpenAI: its URLs, its key's header, always an error file", "openai", _azure),
        ]
        for number, (system, claim, package, show) in enumerate(claims):
            folder = Path(name) / str(number)
            folder.mkdir()
            yield tried(
                system, claim, f"{package} -> llmbatch serve", version_of(package), lambda s=show, f=folder: s(f)
            )  # type: ignore[misc]


class Served:
    """``llmbatch serve`` in a process of its own."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._command = [
            sys.executable, "-m", "llmbatch.cli", "serve", "--model", "demo", "--engine", "scripted", "--port", "0",
            "--data", str(folder / "data"), *settings,
        ]  # fmt: skip
        self.data = folder / "data"
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"http://([\d.]+:\d+)/", said)
        assert found, self._log.read_text()[-500:]
        self.place = found[1]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"http://{self.place}/v1", api_key="none", max_retries=0)


def _begun(client: OpenAI, content: bytes, endpoint: Any = "/v1/chat/completions") -> str:
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h").id


def _ended(client: OpenAI, batch_id: str) -> Any:
    end = time.monotonic() + _SECONDS
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < end, f"the batch is {batch.status} after {_SECONDS:g} s"
        time.sleep(0.05)
    return batch


def _lines(client: OpenAI, file_id: str | None) -> list[Any]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).content.splitlines()]


def _many(count: int, **settings: Any) -> bytes:
    def line(row: int) -> str:
        body = {"model": "demo", "messages": [{"role": "user", "content": f"text {row}"}], **settings}
        return json.dumps({"custom_id": f"row-{row}", "method": "POST", "url": "/v1/chat/completions", "body": body})

    return "".join(line(row) + "\n" for row in range(count)).encode()


def _fits(seen: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(key in seen and _fits(seen[key], each) for key, each in wanted.items())
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(seen) == len(wanted) and all(map(_fits, seen, wanted))
    if isinstance(wanted, str) and "*" in wanted:
        return wanted == "*" or (isinstance(seen, str) and seen.startswith(wanted.partition("*")[0]))
    return bool(seen == wanted)


def _batch(folder: Path) -> str:
    with Served(folder) as server:
        client = server.openai
        batch = _ended(client, _begun(client, (LINES / "chat.jsonl").read_bytes()))
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (3, 2, 1), counts
        for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
            wanted = [json.loads(line) for line in (LINES / "expected" / f"{name}.jsonl").read_text().splitlines()]
            assert _fits(_lines(client, file_id), wanted), name
    return "output and error file equal the expected ones"


def _invalid(folder: Path) -> str:
    with Served(folder) as server:
        client = server.openai
        for code, line in _CODES.items():
            batch = _ended(client, _begun(client, (LINES / "invalid" / f"{code}.jsonl").read_bytes()))
            seen = [(error.code, error.line) for error in batch.errors.data]
            assert (batch.status, seen) == ("failed", [(code, line)]), (code, batch.status, seen)
            assert not (server.data / "batches" / batch.id / "run").exists(), code
    return f"{len(_CODES)} files"


def _slow() -> tuple[str, ...]:
    settings = ("engine.args.latency=0.05", "engine.args.concurrency=8", "run.window=64", "run.grace=1")
    return tuple(word for setting in settings for word in ("--set", setting))


def _cancelled(folder: Path) -> str:
    with Served(folder, *_slow()) as server:
        client = server.openai
        batch_id = _begun(client, _many(1000))
        while not client.batches.retrieve(batch_id).request_counts.completed:
            time.sleep(0.05)
        client.batches.cancel(batch_id)
        batch = _ended(client, batch_id)
        done, rest = _lines(client, batch.output_file_id), _lines(client, batch.error_file_id)
    ids = sorted(line["custom_id"] for line in (*done, *rest))
    assert batch.status == "cancelled" and ids == sorted(f"row-{row}" for row in range(1000)), (batch.status, len(ids))
    return f"{len(done)} answered, {len(rest)} not run"


def _killed(folder: Path) -> str:
    server = Served(folder, *_slow())
    with server:
        client = server.openai
        batch_id = _begun(client, _many(1000))
        while client.batches.retrieve(batch_id).request_counts.completed < 200:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server.start()
        client = server.openai
        batch = _ended(client, batch_id)
        done = _lines(client, batch.output_file_id)
        sessions = json.loads((server.data / "batches" / batch_id / "run" / "run.json").read_text())["sessions"]
        parts = [
            json.loads(each.read_text()) for each in (server.data / "batches" / batch_id / "run").glob("report.json")
        ]
    assert [line["custom_id"] for line in done] == [f"row-{row}" for row in range(1000)], batch.status
    assert len(sessions) == 2 and sessions[1]["done_before"] >= 200, sessions
    assert parts[0]["sessions"][-1]["rows"] == 1000 - sessions[1]["done_before"], parts[0]["sessions"]
    return f"{sessions[1]['done_before']} rows were done before the kill, {1000 - sessions[1]['done_before']} after it"


def _killed_with_vllm(folder: Path) -> str:
    """The server dies, and its engine's process goes with it; then the engine's process alone, and the server gets another."""
    rows, settings = 60, ("max_num_seqs=4", "enforce_eager=true", "dtype=float32")
    given = [part for setting in settings for part in ("--set", f"engine.args.{setting}")]
    server = Served(folder, "--engine", "vllm", "--set", "run.window=8", *given)
    with server:
        batch_id = _begun(server.openai, _many(rows, max_tokens=100, ignore_eos=True))
        _until(lambda: server.openai.batches.retrieve(batch_id).request_counts.completed >= 24)
        started = _children(server)
        assert server.openai.batches.retrieve(batch_id).status == "in_progress"
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        _until(lambda: not any(map(_lives, started)))
        server.start()
        client = server.openai
        _until(lambda: client.batches.retrieve(batch_id).request_counts.completed >= 32)
        children = _children(server)
        engine = max(children, key=lambda each: each.memory_info().rss)
        assert client.batches.retrieve(batch_id).status == "in_progress"
        engine.kill()
        batch = _ended(client, batch_id)
        assert {*_children(server)} - {*children}, "no other engine was started"
        done = _lines(client, batch.output_file_id)
        sessions = json.loads((server.data / "batches" / batch_id / "run" / "run.json").read_text())["sessions"]
    assert [line["custom_id"] for line in done] == [f"row-{row}" for row in range(rows)], batch
    assert sessions[1]["done_before"] >= 8, sessions
    before = sessions[1]["done_before"]
    return f"{len(started)} processes ended with the server, with {before} of {rows} rows done; then another engine was killed"


def _until(good: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not good():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def _children(server: Served) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _live(folder: Path) -> str:
    asked: Any = [{"role": "user", "content": "one loaf of rye"}]
    with Served(folder, *_slow()) as server:
        client = server.openai
        batch_id = _begun(client, _many(400))
        whole = client.chat.completions.create(model="demo", messages=asked)
        chunks = list(client.chat.completions.create(model="demo", messages=asked, stream=True))
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert whole.choices[0].message.content == text == "one loaf of rye", (whole, text)
        assert client.completions.create(model="demo", prompt="one", max_tokens=9).choices[0].text == "one"
        assert client.responses.create(model="demo", input="one loaf").output_text == "one loaf"
        events = list(client.responses.create(model="demo", input="one loaf", stream=True))
        assert events[-1].type == "response.completed", events[-1]
        assert client.batches.retrieve(batch_id).status == "in_progress"
        client.batches.cancel(batch_id)
    return f"{len(chunks)} chunks of a chat, {len(events)} events of a response, while the batch ran"


def _azure(folder: Path) -> str:
    (folder / "keys").write_text("team a-key-of-a-whole-team\n")
    with Served(folder, "--api-key-file", str(folder / "keys")) as server:
        client = AzureOpenAI(
            azure_endpoint=f"http://{server.place}", api_version="2025-03-01-preview", api_key="a-key-of-a-whole-team"
        )
        batch = _ended(client, _begun(client, (LINES / "chat.azure.jsonl").read_bytes(), "/chat/completions"))
        assert batch.status == "completed" and len(_lines(client, batch.output_file_id)) == 3, batch
        assert client.files.retrieve(batch.error_file_id).bytes == 0
        answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}])
    return f"three answers, an empty error file, and {answer.choices[0].message.content!r} by its deployment's path"
