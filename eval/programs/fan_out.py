"""A million children of ``fan_out`` on the scripted engine: memory over the run, killed at half and finished; figures out.

    python eval/programs/fan_out.py [--children 1000000] [--a-row 10] [--results fan_out.json]

The job runs in a process of its own, on one core. It is killed (SIGKILL) when half of the rows are done, and the same job goes on.
Memory must be flat and below 500 MB, and every child must be there once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 500
_SAMPLE_SECONDS = 0.1
_EARLY = 0.5  # share of a session that the slope leaves out: the memory for duplicates fills up, and pools do


class Sample(NamedTuple):
    """How much memory the process had when so many rows were done."""

    rows: int
    mib: float


class Session(NamedTuple):
    """One session of the run: its samples while rows were done and while its files were written, and how long it took."""

    samples: list[Sample]
    seconds: float
    code: int


def write_input(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            file.write(
                json.dumps({"id": f"topic-{i}", "topic": f"the history of place {i}, in the words of its people"})
                + "\n"
            )
    return path


def job_data(source: Path, output: Path, a_row: int) -> dict[str, Any]:
    """Questions, one a line, that differ from row to row, and an echo as the answer to each."""
    questions = "\n".join(
        f"{n}. What is to be said of aspect {n} of place {{index}}, and why?" for n in range(1, a_row + 1)
    )
    script = {"rules": [{"when": {"step": 0}, "answer": questions}]}
    return {
        "model": "any",
        "prompt": {"path": "Ask {{ topic }} some questions, one a line"},
        "input": {"path": str(source)},
        "output": str(output),
        "engine": {"name": "scripted", "args": script},
        "sampling": {"temperature": 0},
        "program": {
            "name": "fan_out",
            "prompts": {"child": "Answer the question about {{ topic }} in two sentences: {{ item }}"},
            "settings": {"most": a_row},
        },
    }


def session(job: Path, kill_at: int | None = None) -> Session:
    """Run the job, or go on with it; with its memory looked at from outside, as its rows are told from inside."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "llmbatch.cli", "run", str(job), "--json"],
        stdout=subprocess.PIPE, env=environment, preexec_fn=_on_one_core, text=True,
    )  # fmt: skip
    watched, samples, ended = psutil.Process(process.pid), [Sample(0, 0.0)], threading.Event()
    rows = 0

    def look() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            try:
                samples.append(Sample(rows, watched.memory_info().rss / 2**20))
            except psutil.NoSuchProcess:
                return

    looking = threading.Thread(target=look)
    looking.start()
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "snapshot":
            rows = event["rows"]
            if kill_at is not None and rows >= kill_at:
                os.kill(process.pid, signal.SIGKILL)
    code = process.wait()
    ended.set()
    looking.join()
    return Session(samples, time.monotonic() - began, code)


def slope(samples: Sequence[Sample], a_row: int) -> float | None:
    """MiB a million children, by least squares over a session without its start."""
    last = samples[-1].rows
    first = next((sample.rows for sample in samples if sample.rows), 0)
    kept = [(s.rows * a_row / 1e6, s.mib) for s in samples if s.rows >= first + _EARLY * (last - first)]
    mean_at, mean_mib = (sum(values) / len(kept) for values in zip(*kept, strict=True))
    spread = sum((at - mean_at) ** 2 for at, _ in kept)
    return sum((at - mean_at) * (mib - mean_mib) for at, mib in kept) / spread if spread else None


def children_of(output: Path, a_row: int) -> dict[str, int]:
    """How many children there are, and how many are missing, double or out of place."""
    total = wrong = 0
    with (output / "children.jsonl").open(encoding="utf-8") as file:
        for total, line in enumerate(file, 1):
            child = json.loads(line)
            row, number = divmod(total - 1, a_row)
            wrong += child["id"] != f"topic-{row}/{number}" or child["status"] != "ok"
    return {"children": total, "wrong": wrong}


def measure(children: int, a_row: int, folder: Path) -> dict[str, Any]:
    rows = children // a_row
    output, job = folder / "out", folder / "job.yaml"
    job.write_text(json.dumps(job_data(write_input(folder / "rows.jsonl", rows), output, a_row)), encoding="utf-8")
    killed = session(job, rows // 2)
    if killed.code != -signal.SIGKILL:
        raise SystemExit(f"the first session was to be killed, and ended with exit code {killed.code}")
    whole = session(job)
    if whole.code != 0:
        raise SystemExit(f"the second session ended with exit code {whole.code}")
    peaks = {name: max(s.mib for s in each.samples) for name, each in (("killed", killed), ("resumed", whole))}
    done = [each.samples[-1].rows - next(s.rows for s in each.samples if s.rows) for each in (killed, whole)]
    counted = children_of(output, a_row)
    peak = max(peaks.values())
    return {
        "rows": rows,
        **counted,
        "rss_peak_mib": {name: round(mib, 1) for name, mib in peaks.items()},
        "rss_slope_mib_per_million_children": {
            "killed": slope(killed.samples, a_row),
            "resumed": slope(whole.samples, a_row),
        },
        "seconds": {"killed": round(killed.seconds, 1), "resumed": round(whole.seconds, 1)},
        "children_per_second": round(sum(done) * a_row / (killed.seconds + whole.seconds)),
        "megabytes": {
            name: round((output / name).stat().st_size / 1e6) for name in ("results.jsonl", "children.jsonl")
        },
        "rss_mib": {
            name: [(s.rows, round(s.mib, 1)) for s in each.samples[:: max(len(each.samples) // 60, 1)]]
            for name, each in (("killed", killed), ("resumed", whole))
        },
        "ok": counted == {"children": children // a_row * a_row, "wrong": 0} and peak * 2**20 < LIMIT_MB * 1e6,
    }


def _on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=1_000_000)
    parser.add_argument("--a-row", type=int, default=10, help="children a row")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--work", type=Path, help="an empty folder for input and output; by default a temporary one")
    options = parser.parse_args()
    folder = options.work or Path(tempfile.mkdtemp(prefix="fan-out-"))
    try:
        found = measure(options.children, options.a_row, folder)
    finally:
        if options.work is None:
            shutil.rmtree(folder)
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, value in found.items():
        if name != "rss_mib":
            print(f"{name}: {value}")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
