"""``make scale``: what one driver feeds, how well several engines share their caches and end together, and a Ray cluster of them;
``RESULTS.md``.

    scale.py [--seconds S] [--replicas 1,2,...] [--rows N] [--vllm-rounds N] [--parts crossing,kills,vllm,peer] [--write]

Without ``--write`` the figures are only printed. They hold for a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import cluster
import replicas
import routing

from llmbatch.core.versions import versions

HERE = Path(__file__).parent
DAY = 86_400
CORPORA = (10**7, 10**9, 10**11)
GPU_ROWS = (10, 100, 1000)  # rows/s of one GPU: long answers of a large model, short ones, labels of a small model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="that a run with scripted engines should take")
    parser.add_argument("--replicas", default="1,2,4,8,16,64")
    parser.add_argument("--rows", type=int, default=100_000, help="of the simulated engines")
    parser.add_argument("--vllm-rounds", type=int, default=5, help="0 leaves the real engine out")
    cluster.add_options(parser)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    given = parser.parse_args()
    counts = [int(count) for count in given.replicas.split(",")]
    found = list(replicas.points(counts, given.seconds))
    lines = [*_head(), *_points(found), "", *_arithmetic(found), "", *_routing(given.rows)]
    if given.vllm_rounds:
        lines += ["", *_vllm(given.vllm_rounds)]
    if given.parts:
        lines += ["", *cluster.report(given)]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if given.write:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return 0


def _head() -> list[str]:
    return [
        "# What one driver feeds",
        "",
        f"Made by `make scale` with llmbatch {versions()['llmbatch']}, Python {platform.python_version()}, on "
        f"{len(os.sched_getaffinity(0))} processors.",
        "",
    ]


def _points(found: list[replicas.Point]) -> list[str]:
    return [
        f"Scripted engines that answer in {replicas.LATENCY * 1000:.0f} ms, {replicas.AT_A_TIME} requests at a time: one alone "
        f"does at most {replicas.RATE:.0f} rows/s. From the input file to the sealed parts, after start-up.",
        "",
        *replicas.table(found),
    ]


def _arithmetic(found: list[replicas.Point]) -> list[str]:
    """What a driver does at most, and how many drivers and days a corpus takes."""
    most = max(p.rows_per_s for p in found if p.where == "processes")
    lines = [
        f"One driver ends at about {most:,.0f} rows/s here. GPUs that one driver keeps busy, and days that a corpus takes:",
        "",
        "| a GPU does | GPUs of one driver | " + " | ".join(f"{rows:.0e} rows" for rows in CORPORA) + " |",
        "|---|---|" + "---|" * len(CORPORA),
    ]
    for rate in GPU_ROWS:
        gpus = max(1, int(most / rate))
        days = [f"{rows / (gpus * rate) / DAY:,.1f} days" for rows in CORPORA]
        lines.append(f"| {rate:,} rows/s | {gpus:,} | " + " | ".join(days) + " |")
    return lines


def _routing(rows: int) -> list[str]:
    lines = [
        "## Rows that share a prefix stay together",
        "",
        "Shuffled rows in prefix groups, the plan and the feed of a run, simulated engines with a prefix cache of one size each.",
        "",
        "| work | rows | groups | engines | hits of one | hits of all | against one | last engine after the mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in routing.both(rows, max(1, rows // 20), 8):
        lines.append(
            f"| {r.name} | {r.rows:,} | {r.groups:,} | {r.engines} | {r.hits_one:.1%} | {r.hits:.1%} | {r.share:.1%} "
            f"| {r.late:.1%} |"
        )
    return lines


def _vllm(rounds: int) -> list[str]:
    found = replicas.vllm_pair(2000, rounds)
    return [
        "## Real engines",
        "",
        f"vLLM with the demo model on {found['processors']} processors, {found['rows']:,} rows, median of {found['rounds']} "
        f"rounds, turn and turn about, loading left out: one engine {found['one']:,.0f} rows/s, two on half of the processors each "
        f"{found['two']:,.0f} rows/s ({found['gain'] - 1:+.0%}).",
    ]


if __name__ == "__main__":
    sys.exit(main())
