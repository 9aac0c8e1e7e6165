"""So many rows in; how long llmbatch in an actor and Ray Data LLM take, and what each does when its engine is killed, out.

Ray Data LLM has an environment of its own (``make .venv-bench/ready-cpu``); without it nothing is run, and that is said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from nodes import actors, nodes_of

from llmbatch.core.events import Event, Snapshot
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent / "bench"
PEER = HERE.parents[1] / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Answered:
    """One run: seconds from the command to the files, those at work, and rows that came out. ``outcome`` says how it ended."""

    who: str
    disturbed: bool
    outcome: str
    rows: int
    answered: int
    seconds: float
    at_work: float | None


def peer(rows: int) -> list[Answered]:
    """The same rows through llmbatch in an actor and through Ray Data LLM; then both again, with what answers killed half-way."""
    sys.path.append(str(BENCH))
    import shapes

    found: list[Answered] = []
    with tempfile.TemporaryDirectory(prefix="llmbatch-scale-") as name:
        source, _ = shapes.write("neutral", rows, Path(name))
        for disturbed in (False, True):
            found.append(_ours(source, Path(name) / f"ours-{disturbed}", rows, disturbed=disturbed))
            half = None
            if disturbed:
                before = found[1]
                half = before.seconds - (before.at_work or before.seconds) / 2
            found.append(_theirs(source, Path(name) / f"theirs-{disturbed}", rows, half))
            print(json.dumps([asdict(each) for each in found[-2:]]), file=sys.stderr, flush=True)
    return found


def _ours(source: Path, output: Path, rows: int, *, disturbed: bool) -> Answered:
    import shapes

    killed: list[int] = []

    def kill(event: Event) -> None:
        if disturbed and not killed and isinstance(event, Snapshot) and event.rows > rows / 2:
            (actor,) = actors()
            killed.append(actor.pid)
            actor.kill()

    job = {
        "model": "demo", "input": str(source), "output": str(output), "retry": {"max_attempts": 1},
        "prompt": str(shapes.DEMO / "prompts" / f"{shapes.SHAPES['neutral'].prompt}.yaml"),
        "engine": {"cluster": "ray", "args": dict(shapes.ENGINE)},
    }  # fmt: skip
    with nodes_of(1, len(os.sched_getaffinity(0))):
        began = time.monotonic()
        report = run_job(job_from(job), [kill]).report
        seconds = time.monotonic() - began
    session = report["sessions"][0]
    lines = sum(1 for _ in (output / "results.jsonl").open("rb"))
    return Answered(
        "llmbatch",
        disturbed,
        report["outcome"],
        rows,
        lines,
        seconds,
        seconds - (session["seconds"]["start_up"] or 0.0),
    )


def _theirs(source: Path, target: Path, rows: int, kill_after: float | None) -> Answered:
    """Ray Data LLM in its own environment; its process with the engine killed after so many seconds."""
    import shapes

    target.mkdir()
    began = time.monotonic()
    with (target / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PEER), "-m", "arms.ray_data", json.dumps({"engine": dict(shapes.ENGINE)})],
            cwd=BENCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        command = {
            "do": "run",
            "shape": "neutral",
            "source": str(source),
            "requests": str(source),
            "target": str(target),
        }
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        timer = threading.Timer(kill_after or 0.0, _kill_their_engine, [process.pid])
        if kill_after is not None:
            timer.start()
        answer = process.stdout.readline()
        seconds = time.monotonic() - began
        timer.cancel()
        process.stdin.close()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
    said: Mapping[str, Any] = json.loads(answer) if answer else {}
    files = list((target / "answers").glob("*.json*")) if (target / "answers").exists() else []
    lines = sum(1 for file in files for _ in file.open("rb"))
    return Answered(
        "Ray Data LLM", kill_after is not None, "finished" if answer else "broken: " + _last_error(target / "log"), rows, lines,
        seconds, said.get("seconds_at_work"),
    )  # fmt: skip


def _kill_their_engine(pid: int) -> None:
    """The actor that has the engine: the process of Ray's that vLLM's core is below."""
    for process in psutil.Process(pid).children(recursive=True) + list(psutil.process_iter()):
        try:
            if "ray::" in " ".join(process.cmdline()) and any(
                "EngineCore" in " ".join(c.cmdline()) for c in process.children()
            ):
                process.kill()
                return
        except psutil.Error:
            continue


def _last_error(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "Error" in line]
    return lines[-1].strip()[:200] if lines else "no reason is in its log"


def report(rows: int) -> list[str]:
    """The table, or why there is none, as lines of Markdown."""
    if not PEER.exists():
        return ["Ray Data LLM was not run: its environment is not there (`make .venv-bench/ready-cpu`).", ""]
    lines = [
        f"{rows:,} short rows of the demo model from file to file, one engine; in the second run of each the actor with the engine "
        "was killed half-way:",
        "",
        "| | actor killed | ended | rows out | seconds | start-up left out |",
        "|---|---|---|---|---|---|",
    ]
    for a in sorted(peer(rows), key=lambda each: each.who):
        work = "" if a.at_work is None else f"{a.at_work:,.1f}"
        killed = "yes" if a.disturbed else "no"
        lines.append(f"| {a.who} | {killed} | {a.outcome} | {a.answered:,} of {a.rows:,} | {a.seconds:,.1f} | {work} |")
    return [*lines, ""]
