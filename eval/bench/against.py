"""The pipeline of this checkout against that of an older commit, in turns, each in processes of its own on one core.

    against.py COMMIT [--rounds 5] [--rows 100000]

Each side is measured by its own ``pipeline.py`` with its own prompt and settings, on one input; the libraries are those of now.
What is found is put into ``results.json``, for ``report.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import machine
import pipeline

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_ONE = """
import json, sys
from pathlib import Path
import pipeline
run = pipeline._run(Path(sys.argv[1]), pipeline._fresh(Path(sys.argv[2])), *sys.argv[3:])
run.pop("rss")
print(json.dumps(run))
"""


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def one(tree: Path, source: Path, output: Path, *options: str) -> float:
    """Rows a second of one run of the code in a tree."""
    said = subprocess.run(
        [sys.executable, "-c", _ONE, str(source), str(output), *options], cwd=tree / "eval" / "bench", check=True,
        env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True,
    ).stdout  # fmt: skip
    run = json.loads(said.splitlines()[-1])
    return float(run["rows"] / run["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    commit = git("rev-parse", "--short", options.commit)
    found: dict[str, Any] = {"rows": options.rows, "subject": git("log", "-1", "--format=%s", commit), "arms": {}}
    with tempfile.TemporaryDirectory() as folder:
        work, old = Path(folder), Path(folder) / "old"
        git("worktree", "add", "--detach", str(old), commit)
        try:
            source = pipeline.rows_file(options.rows, work)
            for name, more in (("without tokenization", ()), ("with the tokenizer", ("--tokenizer",))):
                rates: dict[str, list[float]] = {"then": [], "now": []}
                meter = machine.Meter(os.getpid())
                for _ in range(options.rounds):
                    for side, tree in (("then", old), ("now", ROOT)):
                        rates[side].append(one(tree, source, work / side, *more))
                found["arms"][name] = {**rates, "elsewhere": meter.read().elsewhere}
                ratio = median(now / then for then, now in zip(rates["then"], rates["now"], strict=True))
                print(f"{name}: {ratio:.2f} times as fast as {commit}: {json.dumps(found['arms'][name])}", flush=True)
        finally:
            git("worktree", "remove", "--force", str(old))
            shutil.rmtree(old, ignore_errors=True)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    results.setdefault("against", {})[commit] = found
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
