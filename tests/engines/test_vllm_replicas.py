"""Two real vLLM engines on processors, each in a process of its own: one is killed, and the results are those of one engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from llmbatch.core.events import Event, Snapshot
from llmbatch.core.types import Outcome
from llmbatch.engines.feed import Feed
from llmbatch.engines.replicas import Replicas

pytestmark = pytest.mark.vllm

ARGS = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 28,
    "max_num_seqs": 8,
    "dtype": "float32",
    "enable_prefix_caching": False,  # else a record says how many tokens the cache happened to spare
}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> str:
    """Empty for one that is ending."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def pids_at_work(replicas: Replicas) -> set[int]:
    """The processes of the first engine that has something in flight."""
    for number, fork in dict(replicas._forks).items():
        if fork.in_flight and (info := replicas._engines[number].info) is not None:
            return set(info.pids)
    raise AssertionError("no engine has anything in flight")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each engine needs a processor")
def test_two_replicas_of_which_one_is_killed_give_the_bytes_of_one_engine_greedy_and_seeded(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "llmbatch.runs.loop._TICK_SECONDS", 0.0
    )  # a snapshot after each step, however fast the engines are
    texts = [f"{a} hundred and {b}" for a in NUMBERS for b in NUMBERS]
    rows = jobs.rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))
    prompt = "Translate to French: {{ text }}"
    shape: dict[str, Any] = {
        "model": "demo", "prompt": {"path": prompt}, "sampling": {"max_tokens": 50, "ignore_eos": True, "seed": 7},
        "sweep": {"sampling.temperature": [0, 1]},  # greedy, and drawn with seeds
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "llmbatch.cli", "--version"], check=True)  # what is forked from is there
    before = {child.pid for child in psutil.Process().children(recursive=True)}  # of the tests' own
    seen: list[int] = []
    engines: list[Replicas] = []
    stream = Replicas.stream

    def seen_streaming(replicas: Replicas, feed: Feed) -> Iterator[list[Outcome]]:
        engines.append(replicas)
        return stream(replicas, feed)

    monkeypatch.setattr(Replicas, "stream", seen_streaming)

    def kill(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows >= 1 and not seen:
            seen.extend({child.pid for child in psutil.Process().children(recursive=True)} - before)
            workers = [p for p in psutil.Process().children() if "llmbatch.engines.worker" in command_of(p)]
            assert len(workers) == 2
            assert event.waiting, "so that one which ends what it has gets more"
            busy = pids_at_work(engines[0])  # the other one may still be starting
            (worker, *_) = [p for p in workers if busy & {p.pid, *(child.pid for child in p.children(recursive=True))}]
            worker.send_signal(signal.SIGKILL)

    result = jobs.run(jobs.job(rows, engine={"name": "vllm", "replicas": 2, "args": ARGS}, **shape), kill)
    assert result.outcome == "finished"
    assert result.report["sessions"][0]["engine_restarts"] == 1
    for _ in range(600):
        if not any(map(lives, seen)):
            break
        time.sleep(0.1)
    else:
        pytest.fail("processes of the engines outlived the run")
    jobs.run(jobs.job(rows, engine={"name": "vllm", "args": ARGS}, output=str(jobs.path / "one"), **shape))
    assert jobs.results() == jobs.results("one")
    outputs = [record["output"] for record in jobs.records()]
    assert len(outputs) == 2 * len(texts)
    assert outputs[::2] != outputs[1::2], "those of temperature 0 and of 1"
