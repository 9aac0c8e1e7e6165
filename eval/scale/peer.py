"""So many rows in; how long llmbatch in an actor and Ray Data LLM take, and what each does when its engine is killed, out.

Ray Data LLM has an environment of its own (``make .venv-bench/ready-cpu``); without it nothing is run, and that is said. It starts
its engine anew for every pipeline, and needs minutes for that where several of its processes import vLLM on two processors.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from nodes import actors, nodes_of

from llmbatch.core.events import EngineReady, Event, Snapshot
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent / "bench"
PEER = HERE.parents[1] / ".venv-bench" / "bin" / "python"
RUNS = ("whole", "killed")
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Answered:
    """One run: seconds from the command to the files, and rows that came out. ``outcome`` says how it ended. ``at_work``: seconds
    from when the engine was ready, as its first request shows of the peer, to the files.

    ``left_over``: processes of a killed actor's engine that were still there when the run had ended.
    """

    who: str
    killed: bool
    outcome: str
    rows: int
    answered: int
    distinct: int
    seconds: float
    at_work: float | None
    left_over: int = 0


def peer(rows: int, runs: Sequence[str], limit: float) -> list[Answered]:
    """The same rows through llmbatch in an actor and through Ray Data LLM, undisturbed and with what answers killed half-way."""
    sys.path.append(str(BENCH))
    import shapes

    found: list[Answered] = []
    with tempfile.TemporaryDirectory(prefix="llmbatch-scale-") as name:
        source, _ = shapes.write("neutral", rows, Path(name))
        for run in runs:
            kills = run == "killed"
            found.append(_ours(source, Path(name) / f"ours-{run}", rows, kills=kills))
            print(json.dumps(asdict(found[-1])), file=sys.stderr, flush=True)
            found.append(_theirs(source, Path(name) / f"theirs-{run}", rows, limit, kills=kills))
            print(json.dumps(asdict(found[-1])), file=sys.stderr, flush=True)
    return found


def _ours(source: Path, output: Path, rows: int, *, kills: bool) -> Answered:
    import shapes

    engines: list[psutil.Process] = []
    ready: list[float] = []

    def see(event: Event) -> None:
        if isinstance(event, EngineReady):
            ready.append(time.monotonic())
        if kills and not engines and isinstance(event, Snapshot) and event.rows > rows / 2:
            (actor,) = actors()
            engines.extend(_kill(actor))

    job = {
        "model": "demo", "input": str(source), "output": str(output), "retry": {"max_attempts": 1},
        "prompt": str(shapes.DEMO / "prompts" / f"{shapes.SHAPES['neutral'].prompt}.yaml"),
        "engine": {"cluster": "ray", "args": dict(shapes.ENGINE)},
    }  # fmt: skip
    began = time.monotonic()  # the peer starts its cluster itself
    with nodes_of(1, len(os.sched_getaffinity(0))):
        report = run_job(job_from(job), [see]).report
        ended = time.monotonic()
        left_over = _end(engines)
    answered, distinct = _count([output / "results.jsonl"])
    return Answered(
        "llmbatch", bool(engines), report["outcome"], rows, answered, distinct, ended - began, ended - ready[0], left_over,
    )  # fmt: skip


def _theirs(source: Path, target: Path, rows: int, limit: float, *, kills: bool) -> Answered:
    """Ray Data LLM in its own environment; where it is to be killed, each answer leaves a byte in a file, so that half is known."""
    import shapes

    target.mkdir()
    progress = target / "progress"
    settings = {"engine": dict(shapes.ENGINE), **({"progress": str(progress)} if kills else {})}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    paths = {"source": str(source), "requests": str(source), "target": str(target)}
    began = time.monotonic()
    with (target / "log").open("wb") as log, _process(settings, environment, log) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"do": "run", "shape": "neutral", **paths}) + "\n")
        process.stdin.flush()
        engines: list[psutil.Process] = []
        ended = threading.Event()
        if kills:
            threading.Thread(target=_kill_theirs, args=(progress, rows // 2, engines, ended), daemon=True).start()
        there = select.select([process.stdout], [], [], limit)[0]
        answer = process.stdout.readline() if there else ""
        seconds = time.monotonic() - began
        ended.set()
        left_over = _end(engines)
    said: Mapping[str, Any] = json.loads(answer) if answer else {}
    answered, distinct = _count(sorted((target / "answers").glob("*.json*")))
    failed = "broken" if there else f"nothing in {limit:.0f} s"
    outcome = "finished" if answer else f"{failed}: {_last(target / 'log')}"
    return Answered(
        f"Ray Data LLM {_version()}", bool(engines), outcome, rows, answered, distinct, seconds, said.get("seconds_at_work"),
        left_over,
    )  # fmt: skip


@contextlib.contextmanager
def _process(settings: Mapping[str, Any], environment: Mapping[str, str], log: Any) -> Iterator[subprocess.Popen[str]]:
    """The arm's process, and at the end nothing of it or of the nodes that it started."""
    process = subprocess.Popen(
        [str(PEER), "-m", "arms.ray_data", json.dumps(settings)], cwd=BENCH, env=dict(environment), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
    )  # fmt: skip
    try:
        yield process
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end(below)


def _kill_theirs(progress: Path, half: int, engines: list[psutil.Process], ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        if progress.exists() and progress.stat().st_size >= half and (actor := _their_actor()) is not None:
            engines.extend(_kill(actor))
            return


def _their_actor() -> psutil.Process | None:
    """The process of Ray's that vLLM's core is below."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "ray::" in " ".join(process.cmdline()) and any(
                "EngineCore" in " ".join(child.cmdline()) for child in process.children()
            ):
                return process
    return None


def _kill(actor: psutil.Process) -> list[psutil.Process]:
    """Kill it as a machine that is out of memory would; the processes of its engine, and it."""
    below = actor.children(recursive=True)
    actor.kill()
    return [*below, actor]


def _end(processes: Sequence[psutil.Process]) -> int:
    """End what is still there of them; how many that were."""
    left = [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return len(left)


def _count(files: Sequence[Path]) -> tuple[int, int]:
    """Lines of all files, and how many different rows they are of."""
    ids = [json.loads(line)["id"] for file in files if file.exists() for line in file.open("rb")]
    return len(ids), len(set(ids))


def _last(log: Path) -> str:
    """The last error of a log, or else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["its log is empty"])[-1][:300]


def _version() -> str:
    said = subprocess.run([str(PEER), "-c", "import ray; print(ray.__version__)"], capture_output=True, text=True)
    return said.stdout.strip()


def report(rows: int, runs: Sequence[str], limit: float) -> list[str]:
    """The table, or why there is none, as lines of Markdown."""
    if not PEER.exists():
        return ["Ray Data LLM was not run: its environment is not there (`make .venv-bench/ready-cpu`).", ""]
    lines = [
        f"{rows:,} short rows of the demo model from file to file, one engine; where it says so, the actor with the engine was "
        "killed half-way:",
        "",
        "| | actor killed | ended | rows out | twice | seconds | start-up left out | processes left over |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for a in sorted(peer(rows, runs, limit), key=lambda each: each.who):
        work = "" if a.at_work is None else f"{a.at_work:,.1f}"
        killed = "yes" if a.killed else "no"
        lines.append(
            f"| {a.who} | {killed} | {a.outcome} | {a.distinct:,} of {a.rows:,} | {a.answered - a.distinct:,} | {a.seconds:,.1f} "
            f"| {work} | {a.left_over} |"
        )
    return [*lines, ""]
