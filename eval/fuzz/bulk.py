"""Hostile rows in bulk through whole jobs: each line has one record, the results are strict JSON, and memory does not grow.

    python eval/fuzz/bulk.py [--lines 100000] [--seed 1]        prints figures as JSON

The engine is the scripted one, which echoes. Two jobs: mutated lines, and lines of 50 MB between good ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import psutil
from mutate import mutated_lines

from llmbatch.audit.audit import audit
from llmbatch.core.events import Event, Sealed
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

MIB = 1 << 20


def run(folder: Path, lines: Iterable[bytes], window: int) -> dict[str, Any]:
    """Run a job over the lines; what came out is checked, and counted."""
    rows = folder / "rows.jsonl"
    count = write(rows, lines)
    memory: list[float] = []  # when a window is sealed, in MiB

    def watch(event: Event) -> None:
        if isinstance(event, Sealed):
            memory.append(psutil.Process().memory_info().rss / MIB)

    data = {
        "model": "any",
        "prompt": "{{ text }}",
        "input": {"path": str(rows), "format": "jsonl"},
        "output": str(folder / "out"),
        "engine": {"name": "scripted"},
        "retry": {"max_attempts": 1},
        "run": {"window": window},
    }
    began = time.monotonic()
    run_job(job_from(data), [watch])
    seconds = time.monotonic() - began
    found = audit(folder / "out")
    assert found.complete, [problem for check in found.checks for problem in check.problems]
    settled = memory[len(memory) // 4 :]  # caches are full by then
    return {
        "lines": count,
        "records": records(folder / "out" / "results.jsonl"),
        "seconds": round(seconds, 1),
        "rss_mib": {"after a quarter": round(settled[0]), "at the end": round(settled[-1]), "peak": round(max(memory))},
    }


def write(path: Path, lines: Iterable[bytes]) -> int:
    count = 0
    with path.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")
            count += 1
    return count


def records(results: Path) -> dict[str, int]:
    """Records by status and kind of failure, seen to be strict JSON in UTF-8, one for each index."""
    kinds: Counter[str] = Counter()
    with results.open("rb") as file:
        for index, line in enumerate(file):
            record = json.loads(line.decode("utf-8", "strict"), parse_constant=refuse)
            json.dumps(record, ensure_ascii=False).encode("utf-8", "strict")
            assert record["index"] == index
            kinds[record["status"] if record["status"] == "ok" else record["error"]["kind"]] += 1
    return {"all": sum(kinds.values()), **dict(sorted(kinds.items()))}


def refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def long_lines() -> Iterable[bytes]:
    good = b'{"id": "good", "text": "fine"}'
    text = "x" * (50 * MIB)
    yield from (
        good,
        json.dumps({"text": text}).encode(),
        good,
        b"x" * (50 * MIB),
        good,
        b'{"text": "' + b"\xff" * (50 * MIB),
        good,
    )
    yield from (b'{"text": "' + b"\\n" * (25 * MIB) + b'"}', good, b"[" * (50 * MIB), good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    figures = {}
    for name, lines, window in (
        ("mutated", mutated_lines(arguments.lines, arguments.seed), 1000),
        ("lines of 50 MB", long_lines(), 4),
    ):
        with tempfile.TemporaryDirectory(prefix="llmbatch-bulk-") as folder:
            figures[name] = run(Path(folder), lines, window)
            assert figures[name]["records"]["all"] == figures[name]["lines"]
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
