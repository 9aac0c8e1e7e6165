"""Two commits in; what a row of the pipeline benchmark takes on each of them out: instructions of the processor, and their ratio.

    python eval/bench/instructions.py [--before COMMIT] [--few ROWS] [--many ROWS] [--tokenizer]

An instruction is one whatever else the machine is doing, which a second is not. Each tree runs its own ``pipeline.py`` under
valgrind, over the same few and the same many rows; the difference of the two runs is what the rows between take, without the
start. What goes by the clock (journals are flushed and the screen is told a few times a second) comes about fifty times as often
a row as without valgrind, the same for both trees. Both engines are scripted, each tree's own.

Measured on 29 November 2026 (x86-64, Python 3.11.7, 15,000 rows less 5,000): 358,625 before the house, 386,000 with it, 310,719
after what a row takes was looked at, which is 1.154 times as many rows as before the house. Two runs of the same tree differ by
less than half a percent.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipeline
import shapes

BEFORE_THE_HOUSE = "a383745"  # the last commit with flat modules
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE_THE_HOUSE, help="the commit to compare this tree with (%(default)s)")
    parser.add_argument("--few", type=int, default=5_000, help="rows of the shorter run (%(default)s)")
    parser.add_argument("--many", type=int, default=15_000, help="rows of the longer run (%(default)s)")
    parser.add_argument("--tokenizer", action="store_true", help="with the demo model's tokenizer")
    parser.add_argument("--only", choices=("before", "now"), help="count one of the two alone")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("this counts with valgrind, which is not installed")
    options = ["--tokenizer"] if given.tokenizer else []
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = pipeline.rows_file(given.few, folder), pipeline.rows_file(given.many, folder)
        if given.only != "now":
            with _checked_out(given.before, folder / "before") as tree:
                found["before"] = _a_row(tree, few, many, given.many - given.few, folder, options)
            print(f"{given.before}: {found['before']:,.0f} instructions a row", flush=True)
        if given.only != "before":
            found["now"] = _a_row(shapes.ROOT, few, many, given.many - given.few, folder, options)
            print(f"this tree: {found['now']:,.0f} instructions a row", flush=True)
    if len(found) > 1:
        print(f"this tree does {found['before'] / found['now']:.3f} times as many rows with as many instructions")


@contextmanager
def _checked_out(commit: str, tree: Path) -> Iterator[Path]:
    git = ["git", "-C", str(shapes.ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _a_row(tree: Path, few: Path, many: Path, rows: int, folder: Path, options: list[str]) -> float:
    # a run that found no compiled modules would compile them, which is no work of its rows
    subprocess.run([sys.executable, "-m", "compileall", "-q", "llmbatch", "eval"], cwd=tree, check=True)
    return (_instructions(tree, many, folder, options) - _instructions(tree, few, folder, options)) / rows


def _instructions(tree: Path, source: Path, folder: Path, options: list[str]) -> int:
    """Of one whole run of the tree's own benchmark."""
    output = folder / "run"
    counted = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [*counted, sys.executable, "-m", "pipeline", str(source), str(output), "0", *options]
    ran = subprocess.run(
        command,
        cwd=tree / "eval" / "bench",
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(output, ignore_errors=True)
    said = _COUNTED.search(ran.stderr)
    if ran.returncode or said is None:
        raise SystemExit(f"{tree.name}: the benchmark ended with exit code {ran.returncode}:\n{ran.stderr[-2000:]}")
    return int(said[1].replace(",", ""))


if __name__ == "__main__":
    main()
