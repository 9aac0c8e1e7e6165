"""Exactly N accepted rows of a source that passes some: how many candidates are asked beyond those that were needed.

    python eval/programs/accept.py [--rows 10000] [--share 0.37] [--seeds 5] [--latency 0.25] [--json FILE]

Each run is the real command on the scripted engine with the default settings: 256 sequences at a time, answers that take
``latency`` seconds give or take four fifths, rows drawn without an end, and a condition that a row's own text decides. What is
printed is

- asked, needed and the excess: candidates beyond the last that was needed, as a share of those;
- with ``--tail``: seconds that the run took longer than one over just the candidates that were needed, which knows how many.

Less ``accept.confidence`` asks for less at the end, and waits longer; with the first seed it is measured at three values, which
must accept the same rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

CONCURRENCY = 256
CONFIDENCES = (0.5, 0.9, 0.99)
DEFAULT = 0.9


def write_items(path: Path, share: float, seed: int, count: int) -> None:
    """A list of which this share is good; a run draws from it."""
    rng = random.Random(seed)
    good = round(share * count)
    words = ["good"] * good + ["bad"] * (count - good)
    rng.shuffle(words)
    path.write_text("".join(f"{word} {number}\n" for number, word in enumerate(words)), encoding="utf-8")


def run(folder: Path, output: Path, seed: int, latency: float, **sections: Any) -> dict[str, Any]:
    """One run of the command; its report."""
    drawn = {"item": {"items_of": str(folder / "items.txt")}, "salt": {"from": 0, "to": 10**9}}
    job = {
        "model": "any",
        "prompt": "{{ item }} {{ salt }}",
        "input": {"draw": drawn, "seed": seed, **sections.pop("input", {})},
        "output": str(output),
        "engine": {"name": "scripted", "args": {"latency": latency, "jitter": 0.8, "concurrency": CONCURRENCY}},
        "sampling": {"temperature": 0},
        **sections,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "llmbatch.cli", "run", str(path), "--quiet"], check=True)
    report: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return report


def accepting(folder: Path, output: Path, rows: int, seed: int, latency: float, confidence: float) -> dict[str, Any]:
    """A run that accepts: its figures, and a digest of what was accepted."""
    accept = {"rows": rows, "when": "'good' in output", "confidence": confidence}
    report = run(folder, output, seed, latency, accept=accept)
    accepted = (output / "accepted.jsonl").read_bytes()
    assert accepted.count(b"\n") == rows
    counts = report["accept"]
    needed = counts["candidates"]
    return {
        "seed": seed,
        "confidence": confidence,
        "needed": needed,
        "asked": needed + counts["surplus"],
        "excess": counts["surplus"] / needed,
        "seconds": report["seconds"]["running"],
        "accepted_sha256": hashlib.sha256(accepted).hexdigest(),
    }


def seconds_of(folder: Path, output: Path, rows: int, seed: int, latency: float) -> float:
    """What a run takes over so many rows, all of which are known to be wanted."""
    seconds: float = run(folder, output, seed, latency, input={"rows": rows})["seconds"]["running"]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.37)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.25)
    parser.add_argument("--tail", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="llmbatch-accept-"))
    runs = []
    try:
        for seed in range(given.seeds):
            write_items(folder / "items.txt", given.share, seed, 100_000)
            known: float | None = None
            only = (DEFAULT,) if seed else CONFIDENCES
            for confidence in only:
                each = accepting(folder, folder / f"{seed}-{confidence}", given.rows, seed, given.latency, confidence)
                if given.tail:
                    known = known or seconds_of(folder, folder / f"{seed}-known", each["needed"], seed, given.latency)
                    each["tail_seconds"] = each["seconds"] - known
                runs.append(each)
                print(
                    f"seed {seed}, confidence {confidence}: {given.rows:,} accepted of {each['needed']:,} needed and "
                    f"{each['asked']:,} asked, {each['excess']:.2%} in excess; {each['seconds']:.1f} s"
                    + (f", {each['tail_seconds']:.1f} s of it the tail" if given.tail else ""),
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert len({each["accepted_sha256"] for each in runs if each["seed"] == 0}) == 1
    usual = [each for each in runs if each["confidence"] == DEFAULT]
    figures = {
        "rows": given.rows,
        "share": given.share,
        "latency": given.latency,
        "concurrency": CONCURRENCY,
        "excess_mean": mean(each["excess"] for each in usual),
        "excess_most": max(each["excess"] for each in usual),
        "runs": runs,
    }
    print(json.dumps(figures))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
