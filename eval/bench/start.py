"""A few rows in; how long whole commands take for them, from the start of the process to its end, out.

    python eval/bench/start.py [--rows 200] [--rounds 5] [--arms run,generate] [--results results.json]
    python eval/bench/start.py --phases     where one start of ``llmbatch run`` spends its time
    python eval/bench/start.py --imports    which packages its imports are of, by Python's own count

The arms take turns, a new process each, on the demo model; a round before the first is not counted, so that what earlier starts
leave behind (compiled models, pages in memory) is there for all. ``generate`` is a plain script with transformers.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import machine
import pipeline
import shapes
from bench import Results

HERE = Path(__file__).resolve().parent
PROMPT = shapes.DEMO / "prompts" / f"{shapes.TRANSLATE}.yaml"
_LOOK_SECONDS = 0.02
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( *)(\S+)")
_SHOWN = 24  # packages


class Arm(NamedTuple):
    """A command for rows and a folder; whether that holds a first answer; the answers by row id, once it ended."""

    title: str
    command: Callable[[Path, Path], list[str]]
    answered: Callable[[Path], bool]
    answers: Callable[[Path], dict[str, str]]


def _run(*options: str) -> Callable[[Path, Path], list[str]]:
    def command(rows: Path, folder: Path) -> list[str]:
        return [sys.executable, "-m", "llmbatch.cli", *job(rows, folder), *options]

    return command


def job(rows: Path, folder: Path) -> list[str]:
    """The arguments of ``llmbatch`` for a run over the rows."""
    where = ["--input", str(rows), "--output", str(folder / "run")]
    return ["run", "--model", "demo", "--prompt", str(PROMPT), *where, "--quiet"]


def _script(rows: Path, folder: Path) -> list[str]:
    script = HERE / "arms" / "generate_script.py"
    return [sys.executable, str(script), str(shapes.MODEL), str(rows), str(folder / "answers.jsonl")]


def _run_answered(folder: Path) -> bool:
    """A row is in a journal, or in a part already."""
    parts = folder / "run" / "parts"
    if not parts.is_dir():
        return False
    return any(path.suffix == ".jsonl" or b'"record":' in path.read_bytes() for path in parts.glob("part-*.j*"))


def _script_answered(folder: Path) -> bool:
    path = folder / "answers.jsonl"
    return path.exists() and path.stat().st_size > 0


def _lines(path: Path, key: str) -> dict[str, str]:
    return {line["id"]: line[key] for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


ARMS = {
    "run": Arm(
        "llmbatch run", _run(), _run_answered, lambda folder: _lines(folder / "run" / "results.jsonl", "output")
    ),
    "eager": Arm(
        "llmbatch run, eager: other answers",
        _run("--set", "engine.args.enforce_eager=true"),
        _run_answered,
        lambda folder: _lines(folder / "run" / "results.jsonl", "output"),
    ),
    "generate": Arm(
        "transformers generate, a script",
        _script,
        _script_answered,
        lambda folder: _lines(folder / "answers.jsonl", "text"),
    ),
}


def once(arm: Arm, rows: Path, folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """One process of an arm: seconds to the first answer and to the end, what else used the machine; and its answers."""
    folder.mkdir()
    meter = machine.Meter(os.getpid())  # a child that was waited for counts as its parent
    began, first = time.perf_counter(), None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arm.command(rows, folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while process.poll() is None:
            if first is None and arm.answered(folder):
                first = time.perf_counter() - began
            time.sleep(_LOOK_SECONDS)
    use = meter.read()
    if process.returncode:
        raise SystemExit(
            f"{arm.title} ended with exit code {process.returncode}: {(folder / 'log').read_text()[-2000:]}"
        )
    seconds = use.seconds
    said = {
        "first": seconds if first is None else first,
        "seconds": seconds,
        "cpu": use.arm,
        "elsewhere": use.elsewhere,
    }
    return said, arm.answers(folder)


def compare(options: argparse.Namespace, rows: Path, folder: Path) -> dict[str, Any]:
    names = options.arms.split(",")
    rounds: list[dict[str, dict[str, float]]] = []
    answers: dict[str, dict[str, str]] = {}
    for number in range(-1, options.rounds):
        turn = number % len(names)
        done = {}
        for name in (*names[turn:], *names[:turn]):
            done[name], answers[name] = once(ARMS[name], rows, folder / f"{name}-{number}")
        said = ", ".join(
            f"{name} {use['seconds']:.2f} s (first answer {use['first']:.2f} s, elsewhere {use['elsewhere']:.1%})"
            for name, use in done.items()
        )
        print(f"{'not counted' if number < 0 else f'round {number + 1}'}: {said}", flush=True)
        if number >= 0:
            rounds.append(done)
    worst = max((use["elsewhere"] for done in rounds for use in done.values()), default=0.0)
    return {
        "rows": options.rows,
        "rounds": rounds,
        "titles": {name: ARMS[name].title for name in names},
        "equal": {name: _equal(answers[names[0]], answers[name]) for name in names[1:]},
        "scale": 1,
        "elsewhere": worst,
        "quiet": worst <= machine.ELSEWHERE,
    }


def _equal(ours: Mapping[str, str], theirs: Mapping[str, str]) -> int:
    return sum(answer == theirs.get(row) for row, answer in ours.items())


def told(figure: Mapping[str, Any]) -> str:
    """The figure as lines for a person."""
    rounds, (first, *others) = figure["rounds"], figure["titles"]
    lines = []
    for name, title in figure["titles"].items():
        ends, firsts = ([done[name][key] for done in rounds] for key in ("seconds", "first"))
        lines.append(
            f"{title}: {median(ends):.2f} s ({min(ends):.2f} to {max(ends):.2f}), first answer after {median(firsts):.2f} s, "
            f"{median(done[name]['cpu'] for done in rounds):.1f} s of processors"
        )
    for name in others:
        found = [done[name]["seconds"] / done[first]["seconds"] for done in rounds]
        lines.append(
            f"{figure['titles'][first]} is {median(found):.2f} times as fast as {figure['titles'][name]} "
            f"({min(found):.2f} to {max(found):.2f}); {figure['equal'][name]} of {figure['rows']} answers are equal"
        )
    return "\n".join(lines)


def phases(rows: Path, folder: Path) -> str:
    """Where one start spends its time: every step with its beginning and its length, what is within another moved in."""
    lines = []
    for number in range(2):  # the second is told
        target, spans = folder / f"phases-{number}", folder / f"spans-{number}.json"
        began = time.time()
        program = [sys.executable, str(HERE / "phases.py"), str(spans), repr(began)]
        subprocess.run([*program, *job(rows, target)], check=False, stdin=subprocess.DEVNULL)
        total = time.time() - began
        lines = [f"{'begins':>8} {'lasts':>7}"]
        found = sorted(json.loads(spans.read_text(encoding="utf-8")), key=lambda span: float(span["begin"]))
        for i, span in enumerate(found):
            depth = sum(
                other["thread"] == span["thread"] and other.get("end", total) > span["begin"] for other in found[:i]
            )
            thread = "" if span["thread"] == "MainThread" else f"  [{span['thread']}]"
            lasts = span.get("end", total) - span["begin"]
            lines.append(f"{span['begin']:8.2f} {lasts:7.2f}  {'   ' * depth}{span['title']}{thread}")
        lines.append(f"{total:8.2f}          the process is gone")
    return "\n".join(lines)


def imports(rows: Path, folder: Path) -> str:
    """Seconds of importing by top-level package, those that its own imports take left out."""
    command = [sys.executable, "-X", "importtime", "-m", "llmbatch.cli", *job(rows, folder / "imports")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    own: collections.Counter[str] = collections.Counter()
    logs = [ran.stderr, *(path.read_text(errors="replace") for path in (folder / "imports").glob("run/*.log"))]
    for line in "\n".join(logs).splitlines():
        if match := _IMPORT.search(line):
            own[match[4].partition(".")[0]] += int(match[1])
    lines = [f"{micros / 1e6:7.2f} s  {package}" for package, micros in own.most_common(_SHOWN)]
    return "\n".join([*lines, f"{sum(own.values()) / 1e6:7.2f} s  all of them"])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arms", default="run,generate", help=f"with commas between: {', '.join(ARMS)}")
    parser.add_argument("--phases", action="store_true", help="show where one start spends its time")
    parser.add_argument("--imports", action="store_true", help="show which packages the imports are of")
    parser.add_argument("--results", type=Path, help="put the figure into this file, for report.py")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = pipeline.rows_file(options.rows, folder)
        if options.phases:
            (folder / "phases-0").mkdir()
            (folder / "phases-1").mkdir()
            print(phases(rows, folder))
        elif options.imports:
            print(imports(rows, folder))
        else:
            figure = compare(options, rows, folder)
            print(told(figure))
            if options.results is not None:
                Results(options.results, forced=False).put("start", "start", figure)


if __name__ == "__main__":
    main()
