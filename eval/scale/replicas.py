"""How many engines in; rows per second through one driver, as a share of what so many would do on their own, out.

    replicas.py [--replicas 1,2,4,...] [--seconds S] [--vllm] [--rounds N]

Each scripted engine answers in 50 ms, 16 requests at a time, so one alone does at most 320 rows/s: how many of them one driver
keeps busy is what is measured, from the input file to the sealed parts; once they are threads of the driver, once processes. With
``--vllm``: two engines with the demo model on half of the processors each against one on all of them, turn and turn about.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbatch.core.events import Event, Snapshot
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

LATENCY = 0.05
AT_A_TIME = 16
RATE = AT_A_TIME / LATENCY  # rows/s of one engine that is never kept waiting
PROMPT = "Say what this is about in one sentence: {{ text }}"
TEXT = (
    "The river rises in the hills behind the town and has been dammed in two places since the mill was given up. " * 4
)
SETTLED = 0.25  # of the rows are answered before it is measured: engines start, and the first window is planned


@dataclass(frozen=True)
class Point:
    """Rows per second with so many engines, ``share`` of so many times one engine's most, and what a row takes of the driver.

    ``bytes_per_s``: of the input.
    """

    where: str
    replicas: int
    rows: int
    rows_per_s: float
    bytes_per_s: float
    share: float
    driver_seconds_per_row: float


def measure(replicas: int, seconds: float, *, hosted: bool, cluster: str | None = None) -> Point:
    """One run of about so many seconds, if the driver keeps up; the engines in the actors of a ``cluster``, where one is named."""
    rows = int(replicas * RATE * seconds)
    seen: list[tuple[float, float, int]] = []

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and rows * SETTLED <= event.rows:
            seen.append((time.monotonic(), time.process_time(), event.rows))

    with tempfile.TemporaryDirectory(prefix="llmbatch-scale-") as name:
        path = Path(name) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": i, "text": f"{i} {TEXT}"}) + "\n" for i in range(rows))
        row_bytes = path.stat().st_size / rows
        args = {"latency": LATENCY, "concurrency": AT_A_TIME, "rules": [{"answer": "It is about a river."}]}
        engine: dict[str, Any] = {"name": "scripted", "replicas": replicas, "args": args}
        engine |= {"hosted": hosted} if cluster is None else {"cluster": cluster}
        job = job_from(_job(path, Path(name) / "out", "any", engine))
        run_job(job, [watch])
    full = [moment for moment in seen if moment[2] < rows * 0.98] or seen
    (began, cpu, first), (ended, cpu_end, last) = full[0], full[-1]
    done = max(last - first, 1)
    per_s = done / max(ended - began, 1e-9)
    where = "actors" if cluster is not None else "processes" if hosted else "threads"
    return Point(where, replicas, rows, per_s, per_s * row_bytes, per_s / (replicas * RATE), (cpu_end - cpu) / done)


def table(found: Sequence[Point]) -> list[str]:
    """As lines of Markdown."""
    return [
        "| engines | are | rows/s | MB/s of input | of linear | driver, µs a row |",
        "|---|---|---|---|---|---|",
        *(
            f"| {p.replicas} | {p.where} | {p.rows_per_s:,.0f} | {p.bytes_per_s / 1e6:,.2f} | {p.share:.1%} "
            f"| {1e6 * p.driver_seconds_per_row:.0f} |"
            for p in found
        ),
    ]


def vllm_pair(rows: int, rounds: int) -> dict[str, Any]:
    """Rows per second of two engines on half of the processors each, and of one on all; the median of the rounds."""
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(
        prefix="llmbatch-scale-"
    ) as name:  # one for all: vLLM's logger keeps its first file
        path = Path(name) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": f"{i} hundred and {i % 97}"}) + "\n" for i in range(rows))
        for turn in range(rounds):
            for replicas in (1, 2) if turn % 2 == 0 else (2, 1):
                found[replicas].append(_vllm(path, Path(name) / f"out-{turn}-{replicas}", replicas))
    one, two = statistics.median(found[1]), statistics.median(found[2])
    processors = len(os.sched_getaffinity(0))
    return {"rows": rows, "rounds": rounds, "processors": processors, "one": one, "two": two, "gain": two / one}


def _vllm(rows: Path, output: Path, replicas: int) -> float:
    """Rows per second from the first answers to the last; loading is left out."""
    engine = {"name": "vllm", "replicas": replicas, "hosted": True, "args": {"enforce_eager": True}}
    report = run_job(job_from(_job(rows, output, "demo", engine))).report
    return float(report["sessions"][0]["speed"]["rows"] or 0.0)


def _job(rows: Path, output: Path, model: str, engine: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model, "prompt": {"path": PROMPT}, "input": {"path": str(rows)}, "output": str(output), "engine": engine,
        "sampling": {"temperature": 0, "max_tokens": 24}, "retry": {"max_attempts": 1},
    }  # fmt: skip


def points(replicas: Sequence[int], seconds: float) -> Iterator[Point]:
    for hosted in (False, True):
        for count in replicas:
            yield measure(count, seconds, hosted=hosted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", default="1,2,4,8,16,64", help="how many engines, with commas between")
    parser.add_argument("--seconds", type=float, default=20.0, help="that a run should take")
    parser.add_argument("--vllm", action="store_true", help="real engines too")
    parser.add_argument("--rows", type=int, default=2000, help="of the runs on real engines")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for point in points([int(count) for count in given.replicas.split(",")], given.seconds):
        print(json.dumps(asdict(point)), flush=True)
    if given.vllm:
        print(json.dumps(vllm_pair(given.rows, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
