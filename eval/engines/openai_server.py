"""The openai engine in figures: against vLLM's own server on this machine, and against a stand-in that fails and is killed.

    python eval/engines/openai_server.py [--rows 2000] [--repetitions 3] [--parts chaos,levels,vllm_levels,speed]

Seconds from file to file, interleaved: llmbatch over the server, a plain asyncio script with OpenAI's client, datatrove's runner
(in an environment of its own, where that is); then llmbatch with vLLM in its own process, from when its engine is ready to
its last answer. The level that is found against fixed ones, on vLLM's server and on a stand-in. A stand-in that fails every tenth
request and is killed twice. Writes ``openai_server.json`` beside this file, part by part, each with what it was made with; a part
that is not run stays as it is there. datatrove is that of ``.venv-datatrove`` (``make .venv-datatrove/ready``), or of the
interpreter that DATATROVE_PYTHON names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from openai_peers import PROMPT
from run import made_with

from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.runs.session import run_job

HERE = Path(__file__).parent
DATATROVE = HERE.parents[1] / ".venv-datatrove"
PEERS = HERE / "openai_peers.py"
STAND_IN = HERE.parents[1] / "tests/engines/openai/stand_in.py"
RESULT = HERE / "openai_server.json"
MAX_TOKENS = 24
SEQS = 128
ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": SEQS,
    "kv_cache_memory_bytes": 1 << 30,
}
LEVELS = (16, 32, 64, 128, 256)
VLLM_LEVELS = (64, 128, 256, 512)
KNEE, SECONDS = 48, 0.05  # of the stand-in: how many it works on at a time, and how long


def make_rows(path: Path, count: int) -> Path:
    """Numbers, of which none is there twice."""
    numbers = random.Random(0).sample(range(10**6), count)
    path.write_text(
        "".join(json.dumps({"id": i, "text": str(n)}) + "\n" for i, n in enumerate(numbers)), encoding="utf-8"
    )
    return path


@contextlib.contextmanager
def vllm_server(
    folder: Path, model: str = str(DEMO_MODEL), engine: Mapping[str, Any] = ENGINE, *more: str
) -> Iterator[str]:
    """vLLM's own server with a model, by default the demo model; its URL."""
    port = free_port()
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in engine.items() if value is not True]
    arguments += [*(f"--{name.replace('_', '-')}" for name, value in engine.items() if value is True), *more]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log", *arguments,
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit((folder / "server.log").read_text()[-3000:])
            with contextlib.suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def job_data(rows: Path, output: Path, engine: Mapping[str, Any], model: str = "tiny") -> dict[str, Any]:
    return {
        "model": model, "prompt": {"path": PROMPT.replace("{text}", "{{ text }}")}, "input": {"path": str(rows)},
        "output": str(output), "engine": dict(engine), "sampling": {"temperature": 0, "max_tokens": MAX_TOKENS},
        "retry": {"max_attempts": 1},
    }  # fmt: skip


def ours(rows: Path, output: Path, engine: Mapping[str, Any], model: str = "tiny") -> float:
    """Seconds of a run in a process of its own, without imports; of an engine with a model without its start and its end."""
    code = (
        "import json, sys, time\nfrom llmbatch.job.job import job_from\nfrom llmbatch.runs.session import run_job\n"
        "job = job_from(json.loads(sys.argv[1]))\nbegan = time.monotonic()\nresult = run_job(job)\n"
        "seconds = result.report['sessions'][-1]['seconds']\n"
        "whole = time.monotonic() - began - seconds['start_up']\n"
        "print('seconds', seconds['running'] if job.engine.name == 'vllm' else whole)\n"
    )
    return measured([sys.executable, "-c", code, json.dumps(job_data(rows, output, engine, model))])


def peer(name: str, python: str, rows: Path, output: Path, url: str, at_a_time: int) -> float:
    return measured([python, str(PEERS), name, str(rows), str(output), url, "tiny", str(MAX_TOKENS), str(at_a_time)])


def measured(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^seconds ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise SystemExit(f"{command[:4]} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return float(found.group(1))


def level_of(output: Path) -> list[int]:
    """What was found, as the engine's log says."""
    found = re.findall(r"requests at a time, at the end: (.*)", (output / "engine.log").read_text())
    return [int(level) for level in re.findall(r"(\d+) to ", found[-1])]


def datatrove_python() -> str | None:
    """An interpreter that has datatrove; None where there is none."""
    if given := os.environ.get("DATATROVE_PYTHON"):
        return given
    return str(DATATROVE / "bin/python") if (DATATROVE / "ready").exists() else None


def datatrove_version(python: str) -> str:
    code = "from importlib.metadata import version; print(version('datatrove'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def speed(folder: Path, count: int, repetitions: int) -> dict[str, Any]:
    """Seconds of each arm on the same rows."""
    rows = make_rows(folder / "rows.jsonl", count)
    python = datatrove_python()
    if python is None:
        print(f"datatrove is not here: make {DATATROVE.name}/ready", flush=True)
    seconds: dict[str, list[float]] = {}
    with vllm_server(folder) as url:
        engine = {"name": "openai", "urls": [url]}
        ours(rows, folder / "warm", engine)

        def arms(turn: int) -> Iterator[tuple[str, float]]:
            yield "llmbatch, server", ours(rows, folder / f"ours-{turn}", engine)
            yield (
                "script with OpenAI's client",
                peer("plain", sys.executable, rows, folder / f"plain-{turn}.jsonl", url, 2 * SEQS),
            )
            if python is not None:
                yield "datatrove", peer("datatrove", python, rows, folder / f"datatrove-{turn}", url, 2 * SEQS)

        for turn in range(repetitions):
            for name, took in arms(turn):
                seconds.setdefault(name, []).append(took)
                print(f"{turn} {name}: {took:.2f} s", flush=True)
    for turn in range(repetitions):  # not beside the server, whose threads it would share a processor with
        took = ours(rows, folder / f"own-{turn}", {"name": "vllm", "args": ENGINE}, str(DEMO_MODEL))
        seconds.setdefault("llmbatch, vLLM in process", []).append(took)
        print(f"{turn} in process: {took:.2f} s", flush=True)
    middle = {name: statistics.median(took) for name, took in seconds.items()}
    peers = [middle[name] for name in ("script with OpenAI's client", "datatrove") if name in middle]
    return {
        "rows": count, "seconds": seconds, "medians": middle,
        "datatrove": "is not here" if python is None else f"{datatrove_version(python)} ran",
        "speed_against_best_peer": min(peers) / middle["llmbatch, server"],
    }  # fmt: skip


def vllm_levels(folder: Path, count: int, repetitions: int) -> dict[str, Any]:
    """On vLLM's server: the level that is found against fixed ones, by turns."""
    rows = make_rows(folder / "rows.jsonl", count)
    seconds: dict[str, list[float]] = {}
    found: list[list[int]] = []
    with vllm_server(folder) as url:
        engine = {"name": "openai", "urls": [url]}
        ours(rows, folder / "levels-warm", engine)
        for turn in range(repetitions):
            for level in (None, *VLLM_LEVELS):
                name = "found" if level is None else f"fixed {level}"
                output = folder / f"levels-{level}-{turn}"
                took = ours(rows, output, engine if level is None else {**engine, "in_flight": level})
                if level is None:
                    found.append(level_of(output))
                seconds.setdefault(name, []).append(took)
                print(f"{turn} {name}: {took:.2f} s", flush=True)
    middle = {name: statistics.median(took) for name, took in seconds.items()}
    fixed = [took for name, took in middle.items() if name != "found"]
    return {
        "rows": count, "sequences": SEQS, "seconds": seconds, "medians": middle, "levels_found": found,
        "speed_against_best_fixed_level": min(fixed) / middle["found"],
    }  # fmt: skip


def levels(folder: Path, count: int) -> dict[str, Any]:
    """On a stand-in that works on so many at a time: the level that is found against fixed ones."""
    rows = make_rows(folder / "level-rows.jsonl", count)
    arguments = ["--slots", str(KNEE), "--seconds", str(SECONDS)]
    process, url = stand_in(*arguments)
    engine = {"name": "openai", "urls": [url]}
    try:
        found = ours(rows, folder / "found", engine, "any")
        fixed = {level: ours(rows, folder / f"at-{level}", {**engine, "in_flight": level}, "any") for level in LEVELS}
    finally:
        process.kill()
    return {
        "rows": count, "slots": KNEE, "seconds_found": found, "level_found": level_of(folder / "found"), "seconds_fixed": fixed,
        "speed_against_best_fixed_level": min(fixed.values()) / found,
    }  # fmt: skip


def chaos(folder: Path, count: int) -> dict[str, Any]:
    """A server that fails every tenth request and is killed twice: what was lost, and what was answered twice."""
    rows, log = make_rows(folder / "chaos-rows.jsonl", count), folder / "answered"
    failing = ["--fail-every", "10", "--seconds", "0.01", "--log", str(log)]
    process, url = stand_in(*failing)
    port = url.rsplit(":", 1)[1].removesuffix("/v1")
    job = job_from(job_data(rows, folder / "chaos", {"name": "openai", "urls": [url]}, "any"))
    run = threading.Thread(target=run_job, args=(job,))
    run.start()
    killed_with = []
    for enough in (count // 3, 2 * count // 3):
        while len(answered(log)) < enough:
            time.sleep(0.01)
        process.kill()
        process.wait()
        killed_with.append(len(answered(log)))
        time.sleep(0.5)
        process, _ = stand_in("--port", port, *failing)
    run.join()
    process.kill()
    records = [json.loads(line) for line in (folder / "chaos/results.jsonl").read_text().splitlines()]
    counts = Counter(answered(log))
    return {
        "rows": count, "kills_after_answers": killed_with, "records": len(records),
        "ok": sum(record["status"] == "ok" for record in records), "answered": len(counts),
        "answered_twice": sum(number > 1 for number in counts.values()),
    }  # fmt: skip


def stand_in(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, str(STAND_IN), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def answered(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def report(figures: Mapping[str, Any]) -> list[str]:
    """The figures in words; of a part that was not run there are none."""
    lines = ["## openai: vLLM's own server, and a stand-in that fails", ""]
    if speed := figures.get("speed"):
        told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in speed["medians"].items())
        ratio = speed["speed_against_best_peer"]
        lines += [
            f"- {speed['rows']:,} rows from file to file, medians of {len(speed['seconds']['llmbatch, server'])}: {told}. "
            f"{ratio:.2f} times as fast as the best other program on the server (datatrove {speed['datatrove']}).",
        ]
        own, served = (speed["medians"].get(name) for name in ("llmbatch, vLLM in process", "llmbatch, server"))
        if own:
            lines.append(
                f"- With vLLM in process, once it is loaded, the rows take {own:.2f} s, {served / own:.2f} times as fast as over "
                "its server. No client over HTTP can reach that: what the server's HTTP and JSON take is the server's, on the "
                "same processors."
            )
    for name, server in (("vllm_levels", "vLLM's server"), ("levels", "a stand-in")):
        if level := figures.get(name):
            found = level.get("levels_found") or level["level_found"]
            lines.append(
                f"- Requests at a time, found by itself on {server}: {found}; "
                f"{level['speed_against_best_fixed_level']:.2f} times as fast as the best fixed number."
            )
    if chaos := figures.get("chaos"):
        lines.append(
            f"- A server that fails every tenth request and was killed after {chaos['kills_after_answers']} answers: of "
            f"{chaos['rows']:,} rows {chaos['ok']:,} ok, {chaos['answered_twice']} answered twice."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--parts", default="chaos,levels,vllm_levels,speed", help="the last two need vLLM, the others a stand-in"
    )
    given = parser.parse_args()
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="llmbatch-openai-") as path:
        folder = Path(path)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "chaos": lambda: chaos(folder, given.rows),
            "levels": lambda: levels(folder, 4 * given.rows),
            "vllm_levels": lambda: vllm_levels(folder, given.rows, given.repetitions),
            "speed": lambda: speed(folder, given.rows, given.repetitions),
        }
        for name in given.parts.split(","):
            began = time.monotonic()
            result[name] = {**made_with(), **parts[name](), "seconds_of_it_all": round(time.monotonic() - began, 1)}
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(name, json.dumps(result[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
