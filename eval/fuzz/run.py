"""Runs every fuzz target and the bulk of hostile rows one after another, and writes the counts to RESULTS.md beside this file.

python eval/fuzz/run.py --seconds 60        as ``make fuzz`` does; with low priority, one process at a time
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TARGETS = {
    "rows": "JSON lines",
    "documents": "texts, web pages and PDFs",
    "requests": "request files, and the outputs that requests ask for",
    "prompts": "prompt files, and rows rendered with them",
    "jobs": "job files, written and read again",
    "folders": "journals, meta files of parts, manifests, locks",
}


class Fuzzed(NamedTuple):
    runs: int
    seconds: int
    edges: int
    crash: str  # the end of what the fuzzer said, where it found something


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--timeout", type=int, default=30, help="seconds after which one input counts as a hang")
    parser.add_argument("--lines", type=int, default=100_000, help="mutated rows that go through a whole job")
    arguments = parser.parse_args()
    os.nice(19)
    bulk = json.loads(python("bulk.py", "--lines", str(arguments.lines)))
    found = {name: fuzz(name, arguments.seconds, arguments.timeout) for name in TARGETS}
    (HERE / "RESULTS.md").write_text(results(found, bulk), encoding="utf-8")
    for name, fuzzed in found.items():
        print(f"{name}: {fuzzed.runs:,} runs, {'a finding' if fuzzed.crash else 'no finding'}")
        if fuzzed.crash:
            print(fuzzed.crash, file=sys.stderr)
    sys.exit(any(fuzzed.crash for fuzzed in found.values()))


def fuzz(name: str, seconds: int, timeout: int) -> Fuzzed:
    """Run one target; libFuzzer's own words are the source of the counts."""
    with tempfile.TemporaryDirectory(prefix="llmbatch-fuzz-") as folder:
        flags = [f"-max_total_time={seconds}", f"-timeout={timeout}", f"-artifact_prefix={folder}/"]
        command = [sys.executable, str(HERE / f"fuzz_{name}.py"), *flags]
        said = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False).stderr
    done = re.search(r"Done (\d+) runs in (\d+) second", said)
    edges = [int(count) for count in re.findall(r"cov: (\d+)", said)]
    crash = "" if done else said[-4000:]
    return Fuzzed(int(done[1]) if done else 0, int(done[2]) if done else 0, max(edges, default=0), crash)


def python(script: str, *arguments: str) -> str:
    """What a script beside this one prints; what it complains about goes to the terminal."""
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def results(found: dict[str, Fuzzed], bulk: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Fuzzing and bad input in bulk",
        "",
        f"Made by `make fuzz` on {date.today()}: atheris {version('atheris')}, Python {platform.python_version()}.",
        "",
        "Coverage-guided: each target asserts what its parser promises for whatever bytes, see the scripts in this folder.",
        "",
        "| target | what is parsed | runs | seconds | edges covered | findings |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, fuzzed in found.items():
        row = (
            f"`fuzz_{name}.py`",
            TARGETS[name],
            f"{fuzzed.runs:,}",
            fuzzed.seconds,
            f"{fuzzed.edges:,}",
            int(bool(fuzzed.crash)),
        )
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += [
        "",
        "In bulk (`bulk.py`): whole jobs on the scripted engine. Every line has exactly one record, `results.jsonl` is strict JSON",
        "in UTF-8 throughout, `llmbatch audit` proves the folder, and the process does not grow.",
        "",
        "| rows | lines | records | seconds | resident memory after a quarter | at the end | peak |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, figures in bulk.items():
        kinds = dict(figures["records"])
        told = f"{kinds.pop('all'):,}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        memory = [f"{size} MiB" for size in figures["rss_mib"].values()]
        row = (name, f"{figures['lines']:,}", told, figures["seconds"], *memory)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
