"""What many clients at once cost, on a server of its own process with the scripted engine: rows of ``RESULTS.md``.

    python eval/server/load.py kills [--batches N] [--rows N] [--clients N] [--kills N]
    python eval/server/load.py upload [--bytes N]
    python eval/server/load.py polling [--rate N] [--rows N] [--rounds N]
    python eval/server/load.py start

``kills``: clients create batches and wait for them while the server is killed (-9) and started again: every batch reaches its end,
no line is lost or doubled, and every run folder passes ``llmbatch audit``. ``upload``: the memory of the server while a file comes
in. ``polling``: how much slower a batch is while so many requests a second ask where it stands. ``start``: how long until the first
answer. Each prints what it saw, as JSON, and writes it to ``--json FILE``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
from openai import APIError, OpenAI

from llmbatch.audit.audit import audit

ENDED = ("completed", "failed", "expired", "cancelled")
_PATIENCE = 600.0
_BOUNDARY = "a-boundary-that-is-in-no-file"
_HEAD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
).encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    kills = commands.add_parser("kills")
    kills.add_argument("--batches", type=int, default=200)
    kills.add_argument("--rows", type=int, default=1000)
    kills.add_argument("--clients", type=int, default=20)
    kills.add_argument("--kills", type=int, default=5)
    upload = commands.add_parser("upload")
    upload.add_argument("--bytes", type=int, default=10 * 10**9)
    polling = commands.add_parser("polling")
    polling.add_argument("--rate", type=int, default=1000)
    polling.add_argument("--rows", type=int, default=4000)
    polling.add_argument("--rounds", type=int, default=3)
    commands.add_parser("start")
    for command in commands.choices.values():
        command.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    measure: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "kills": _kills, "upload": _upload, "polling": _polling, "start": _start,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="llmbatch-load-") as name:
        figures = json.dumps(measure[given.what](Path(name), given), indent=1)
    print(figures)
    if given.json is not None:
        given.json.write_text(figures + "\n", encoding="utf-8")


class Served:
    """``llmbatch serve`` on a folder and a port, which may be killed and started again."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._command = [
            sys.executable, "-m", "llmbatch.cli", "serve", "--model", "demo", "--engine", "scripted",
            "--data", str(folder / "data"), *settings,
        ]  # fmt: skip
        self._log = folder / "server.log"
        self.port = 0
        self.start()

    def start(self) -> float:
        """Start it; returns the seconds until it answered."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert "serves" in said, self._log.read_text()[-2000:]
        self.port = int(said.split("://")[1].split("/")[0].rpartition(":")[2])
        while True:
            with contextlib.suppress(OSError):
                self.ask("GET", "/health")
                return time.monotonic() - began
            time.sleep(0.01)

    def ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().read()

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=60)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def memory(self) -> int:
        """Resident bytes, of it and of what it started."""
        process = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(120)


@contextlib.contextmanager
def served(folder: Path, *settings: str) -> Iterator[Served]:
    server = Served(folder, *settings)
    try:
        yield server
    finally:
        server.stop()


def _persistently(work: Callable[[], Any]) -> Any:
    """What a client gets that asks again as long as there is no server."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return work()
        except (APIError, httpx2.HTTPError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _lines(rows: int, batch: int) -> bytes:
    def line(row: int) -> str:
        messages = [{"role": "user", "content": f"batch {batch} row {row}"}]
        body = {"model": "demo", "messages": messages}
        return json.dumps(
            {"custom_id": f"{batch}-{row}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        )

    return "".join(line(row) + "\n" for row in range(rows)).encode()


def _kills(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    args = ("--set", "engine.args.latency=0.02", "--set", "engine.args.concurrency=256", "--set", "run.window=256")
    with served(folder, *args) as server:
        problems: list[str] = []
        left = threading.Semaphore(0)

        def one(number: int) -> None:
            problems.extend(_one_batch(server.client(), number, given.rows))
            left.release()

        with ThreadPoolExecutor(given.clients) as clients:
            waiting = [clients.submit(one, number) for number in range(given.batches)]
            restarts = []
            for kill in range(given.kills):  # spread over the batches
                for _ in range(max(1, given.batches // (given.kills + 1))):
                    left.acquire(timeout=_PATIENCE)
                time.sleep(random.Random(kill).random())
                server.kill()
                restarts.append(round(server.start(), 2))
            for each in waiting:
                each.result()
        states = _states(server.client())
    audited = sum(audit(run).complete for run in (folder / "data" / "batches").glob("*/run"))
    return {
        "batches": given.batches, "rows": given.rows, "clients": given.clients, "kills": given.kills,
        "restart_seconds": restarts, "seconds": round(time.monotonic() - began, 1), "problems": problems,
        "states": sorted(set(states)), "batches_there": len(states), "audited": audited,
    }  # fmt: skip


def _states(client: OpenAI) -> list[str]:
    """Of every batch that the server has: a client that asked again, as it heard nothing, may have made one more."""
    return [batch.status for batch in client.batches.list(limit=100)]


def _one_batch(client: OpenAI, number: int, rows: int) -> list[str]:
    """Upload, create, wait, read; what is not as it should be, in words."""
    content = _lines(rows, number)
    file = _persistently(lambda: client.files.create(file=("input.jsonl", content), purpose="batch"))
    created = _persistently(
        lambda: client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    )
    while (batch := _persistently(lambda: client.batches.retrieve(created.id))).status not in ENDED:
        time.sleep(0.5)
    if batch.status != "completed" or batch.error_file_id is not None:
        return [f"batch {number} ended {batch.status} with {batch.request_counts}"]
    output = _persistently(lambda: client.files.content(batch.output_file_id).content)
    problems = []
    for row, line in enumerate(output.splitlines()):
        data = json.loads(line)
        said = data["response"]["body"]["choices"][0]["message"]["content"]
        if (data["custom_id"], said) != (f"{number}-{row}", f"batch {number} row {row}"):
            problems.append(f"batch {number}: line {row} is of {data['custom_id']} and says {said!r}")
    if (count := len(output.splitlines())) != rows:
        problems.append(f"batch {number}: {count} lines of {rows}")
    return problems


def _upload(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    block = b"x" * ((1 << 20) - 1) + b"\n"
    with served(folder, "--max-bytes", str(given.bytes + 1)) as server:
        before, most, done = server.memory, 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.05):
                most = max(most, server.memory)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        connection.putrequest("POST", "/v1/files")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
        connection.putheader("Content-Length", str(len(_HEAD) + given.bytes + len(_TAIL)))
        connection.endheaders(_HEAD)
        left = given.bytes
        while left:
            connection.send(block[:left])
            left -= min(left, len(block))
        connection.send(_TAIL)
        answer = json.loads(connection.getresponse().read())
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
        connection.close()
    assert answer["bytes"] == given.bytes, answer
    return {
        "bytes": given.bytes, "seconds": round(seconds, 1), "megabytes_per_second": round(given.bytes / seconds / 1e6),
        "memory_before": before, "memory_most": most, "memory_grown": most - before,
    }  # fmt: skip


def _polling(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Rounds with and without polling in turn, so that what else the machine does falls on both."""
    args = ("--set", "engine.args.latency=0.05", "--set", "engine.args.concurrency=16")
    seconds: dict[bool, list[float]] = {False: [], True: []}
    rates: list[float] = []
    with served(folder, *args) as server:
        client = server.client()
        for number in range(2 * given.rounds):
            polled = bool(number % 2)
            batch = _begun(client, given.rows, number)
            processes = [_poller(server.port, batch, given.rate // 4) for _ in range(4)] if polled else []
            began = time.monotonic()
            while client.batches.retrieve(batch).status not in ENDED:
                time.sleep(0.05)
            seconds[polled].append(round(time.monotonic() - began, 2))
            rates += [sum(map(_ended, processes))] if polled else []
    alone, beside = (min(seconds[polled]) for polled in (False, True))
    return {
        "rows": given.rows, "rate_wanted": given.rate, "rate_had": round(sum(rates) / len(rates)),
        "seconds_alone": seconds[False], "seconds_polled": seconds[True], "slower_by": round(beside / alone - 1, 3),
    }  # fmt: skip


def _begun(client: OpenAI, rows: int, number: int) -> str:
    file = client.files.create(file=("input.jsonl", _lines(rows, number)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


_POLLER = """
import http.client, signal, sys, time
port, batch, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
signal.signal(signal.SIGTERM, lambda *_: (print(count / (time.monotonic() - began), flush=True), sys.exit(0)))
connection, count, began = http.client.HTTPConnection("127.0.0.1", port), 0, time.monotonic()
while True:
    connection.request("GET", f"/v1/batches/{batch}")
    assert connection.getresponse().read()
    count += 1
    time.sleep(max(0.0, began + count / rate - time.monotonic()))
"""


def _poller(port: int, batch: str, rate: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _POLLER, str(port), batch, str(rate)], stdout=subprocess.PIPE, text=True
    )


def _ended(poller: subprocess.Popen[str]) -> float:
    """End it; how often it asked in a second."""
    poller.terminate()
    out, _ = poller.communicate(timeout=60)
    return float(out or 0)


def _start(folder: Path, _given: argparse.Namespace) -> dict[str, Any]:
    with served(folder) as server:
        seconds = []
        for _ in range(5):
            server.stop()
            seconds.append(round(server.start(), 2))
    return {"seconds_to_first_answer": seconds, "processors": os.cpu_count()}


if __name__ == "__main__":
    main()
