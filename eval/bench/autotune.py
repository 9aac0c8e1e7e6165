"""A shape of corpus in; whether what ``--autotune`` chooses for it is faster, with error bars, out, as ``autotune.json``.

    python eval/bench/autotune.py [--shapes neutral] [--rounds 4] [--tolerance exact] [--autotune-time 300]

First the job is tuned, on its own rows. Then it runs untuned and tuned in turns (A B, B A, ...), each time in a process of its own,
with an engine that starts anew and an empty prefix cache, from the input file to the results on disk. What was won is the ratio of
the seconds in which an engine was up; the same with the start-up counted stands beside it. The tuner's own time is given apart.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import shapes
import yaml

from llmbatch.measure.ratios import ratio_of
from llmbatch.measure.speed import Measured, Slice

HERE = Path(__file__).resolve().parent
UNTUNED, TUNED = "untuned", "tuned"


def job_of(shape: str, source: Path, output: Path, engine: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    prompt, settings = shapes.SHAPES[shape].prompt, shapes.SHAPES[shape].engine
    args = {**settings, **engine.get("args", {})}
    return {
        "model": "demo",
        "input": str(source),
        "output": str(output),
        "engine": {**engine, "args": args},
        "retry": {"max_attempts": 1},
        "run": dict(run),
        **({"prompt": str(shapes.DEMO / "prompts" / f"{prompt}.yaml")} if prompt else {}),
    }


def finished(job: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a job, run in a process of its own. Whether each row is ok is not asked here: all arms have the same rows."""
    output = Path(str(job["output"]))
    output.mkdir(parents=True)
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(dict(job)), encoding="utf-8")
    command = [sys.executable, "-m", "llmbatch.cli", "run", str(file), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return report


def answers(folder: Path) -> dict[str, Any]:
    lines = map(json.loads, (folder / "results.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["id"]: line["output"] if line.get("raw") is None else line["raw"] for line in lines}


def measure(shape: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The tuner's choice for a shape, and what it wins."""
    rows = max(round(shapes.SHAPES[shape].rows * options.scale), 64)
    source, _ = shapes.write(shape, rows, folder)
    tuning: dict[str, Any] = {"tolerance": options.tolerance, "max_time": options.autotune_time}
    if options.kinds:
        tuning["kinds"] = options.kinds.split(",")
    report = finished(job_of(shape, source, folder / f"{shape}-tuner", {}, {"autotune": True, "tuning": tuning}))
    found = report["engine"]["autotune"]
    print(f"{shape}: {found['said']}", flush=True)
    arms: dict[str, dict[str, Any]] = {UNTUNED: {}, TUNED: found["changes"]}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        done: dict[str, dict[str, float]] = {}
        for arm in arms if number % 2 == 0 else reversed(arms):
            output = folder / f"{shape}-{arm}-{number}"
            machine.settle()
            seconds = finished(job_of(shape, source, output, arms[arm], {}))["seconds"]
            done[arm] = {"running": seconds["running"], "total": seconds["total"]}
        rounds.append(done)
        said = ", ".join(f"{arm} {done[arm]['running']:.2f} s" for arm in arms)
        print(f"{shape}: {said}, start-up left out", flush=True)
    first, last = answers(folder / f"{shape}-{UNTUNED}-0"), answers(folder / f"{shape}-{TUNED}-0")
    result = {
        "title": shapes.SHAPES[shape].title,
        "rows": rows,
        "scale": options.scale,
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "rounds": rounds,
        "ratio": ratio(rounds, "running"),
        "ratio_with_start_up": ratio(rounds, "total"),
        "equal": {"rows": len(first), "equal": sum(last.get(row) == answer for row, answer in first.items())},
        "tuner": json.loads(json.dumps(found).replace(f"{shapes.ROOT}/", "").replace(f"{HERE}/", "")),
    }
    print(f"{shape}: {in_words(result)}", flush=True)
    return result


def ratio(rounds: Sequence[Mapping[str, Mapping[str, float]]], what: str) -> dict[str, float] | None:
    """How many times as fast the tuned job was, over all rounds, and the bounds of 95% confidence from how these differ."""

    def once(seconds: float) -> Measured:
        return Measured((Slice(seconds, 1_000_000, 0, 0),), (), 1)

    found = ratio_of([(once(each[TUNED][what]), once(each[UNTUNED][what])) for each in rounds])
    return None if found is None else found._asdict()


def in_words(result: Mapping[str, Any]) -> str:
    said = []
    for name, what in (("ratio", "start-up left out"), ("ratio_with_start_up", "start-up counted")):
        if (found := result[name]) is not None:
            said.append(f"{found['expected']:.2f}x ({found['low']:.2f} to {found['high']:.2f}) {what}")
    equal = result["equal"]
    chosen = result["tuner"]["chosen"]
    return f"{chosen}: {', '.join(said) or 'one round tells nothing'}; {equal['equal']} of {equal['rows']} answers are equal"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="neutral", help="which shapes, with commas between")
    parser.add_argument("--rounds", type=int, default=4, help="how often each of the two is run")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, to try it out")
    parser.add_argument("--tolerance", help="as run.tuning.tolerance")
    parser.add_argument("--kinds", help="as run.tuning.kinds, with commas between")
    parser.add_argument("--autotune-time", default="10m", help="as the flag of that name")
    parser.add_argument("--results", type=Path, default=HERE / "autotune.json")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too; the results then say so")
    options = parser.parse_args()
    machine.insist_on_quiet(force=options.force)
    folder = HERE / ".work" / f"autotune-{os.getpid()}"
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    for shape in options.shapes.split(","):
        measured = measure(shape, options, folder)
        results |= {"machine": machine.describe(), shape: {**measured, "forced": options.force}}
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
