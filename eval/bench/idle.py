"""Rows in; which share of the time an engine that was up had nothing to do, out, in its own process and in that of the command.

    python eval/bench/idle.py [--rows 6000,20000] [--rounds 2]

Whole commands, in turns: rows are read and planned while the engine starts, as they are for a user.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
from pathlib import Path
from typing import Any

import machine
import shapes
from autotune import finished, job_of
from bench import Results

HERE = Path(__file__).resolve().parent
SHAPE = "neutral"
ARMS: dict[str, dict[str, Any]] = {"own process": {"in_process": False}, "this process": {"in_process": True}}


def measure(rows: int, rounds: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    source, _ = shapes.write(SHAPE, rows, folder)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for number in range(rounds):
        for arm in ARMS if number % 2 == 0 else reversed(ARMS):
            machine.settle()
            meter = machine.Meter()
            report = finished(job_of(SHAPE, source, folder / f"{rows}-{arm.replace(' ', '-')}-{number}", ARMS[arm], {}))
            session = report["sessions"][-1]
            found[arm].append(
                {"idle_share": session["idle_share"], **session["seconds"], "machine": meter.read().elsewhere}
            )
            print(f"{rows:,} rows, {arm}: {found[arm][-1]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="6000,20000", help="how many, with commas between")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too; the results then say so")
    options = parser.parse_args()
    machine.insist_on_quiet(force=options.force)
    folder = HERE / ".work" / f"idle-{os.getpid()}"
    runs = {rows: measure(int(rows), options.rounds, folder) for rows in options.rows.split(",")}
    results = Results(options.results, forced=options.force)
    measured_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    results.put("idle", "idle", {"title": shapes.SHAPES[SHAPE].title, "measured_at": measured_at, "runs": runs})
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
