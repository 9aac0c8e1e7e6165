"""Runs on the real vLLM engine with the demo model: the run or its EngineCore killed, or told to stop; figures out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sessions

from llmbatch.audit.audit import audit
from llmbatch.demo.demo import HERE
from llmbatch.job.job import Job, job_from

ROWS = 3000
_PATIENCE_SECONDS = 20.0
Action = Callable[[psutil.Process, list[psutil.Process]], None]
"""What to do to a run, given its process and those below it."""


@dataclass(slots=True)
class Real(sessions.Counts):
    """Figures of runs by the command. ``orphans`` counts processes that outlived their run."""

    kills: dict[str, int] = field(default_factory=dict)
    orphans: int = 0
    restarts: int = 0

    def killed(self, kind: str) -> None:
        self.kills[kind] = self.kills.get(kind, 0) + 1


def write_input(path: Path, rows: int = ROWS) -> Path:
    """Numbers in words with a language, drawn by chance but the same each time; of thousands of rows many are equal."""
    rng = random.Random(1)
    tens = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    units = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            text = f"{rng.choice(units)} hundred and {rng.choice(tens)}-{rng.choice(units)}"
            file.write(json.dumps({"id": f"n{i}", "text": text, "language": rng.choice(("French", "German"))}) + "\n")
    return path


def make_job(rows: Path, output: Path, *, in_process: bool, prefix_cache: bool = True) -> Job:
    """Translate the numbers, with few sequences at a time, so that there is time for something to happen."""
    return job_from(
        {
            "model": "demo",
            "prompt": str(HERE / "prompts" / "translate-number.yaml"),
            "input": {"path": str(rows)},
            "output": str(output),
            "engine": {
                "in_process": in_process,
                "in_flight": 4,
                "args": {
                    "enforce_eager": True,
                    "kv_cache_memory_bytes": 1 << 28,
                    "max_num_seqs": 2,
                    "enable_prefix_caching": prefix_cache,
                },
            },
            "plan": {"fold": False},
            "run": {"window": 64, "windows_open": 3, "grace": 5},
        }
    )


def session(job: Job, real: Real, at: int | None = None, act: Action | None = None, *, fault: str | None = None) -> int:
    """One session by the command; when ``at`` rows are done, ``act`` is done to it. Returns its exit code; counts its orphans.

    At the fault point ``fault`` it kills itself.
    """
    file = job.output.with_suffix(".yaml")
    file.write_text(job.to_yaml(), encoding="utf-8")
    with job.output.with_suffix(".stderr").open("ab") as errors:
        run = subprocess.Popen(
            [sys.executable, "-m", "llmbatch.cli", "run", str(file), "--output", str(job.output), "--json"],
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env={**os.environ, **({"LLMBATCH_FAULT": fault} if fault else {})},
        )  # fmt: skip
    process = psutil.Process(run.pid)
    below: dict[int, psutil.Process] = {}
    assert run.stdout is not None
    for line in run.stdout:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            real.problems.append(f"{job.output.name}: not JSON on stdout: {line[:200]!r}")
            continue
        if event["event"] in {"engine_ready", "snapshot"}:
            below.update({child.pid: child for child in _children(process)})
        if event["event"] == "snapshot" and at is not None and act is not None and event["rows"] >= at:
            act(process, list(below.values()))
            at = None
        if event["event"] == "finished":
            real.restarts += event["report"]["sessions"][-1]["engine_restarts"]
    code = run.wait()
    _, alive = psutil.wait_procs(below.values(), timeout=_PATIENCE_SECONDS)
    real.orphans += len(alive)
    for left in alive:
        left.kill()
    return code


def kill_run(process: psutil.Process, _below: list[psutil.Process]) -> None:
    process.kill()


def kill_core(_process: psutil.Process, below: list[psutil.Process]) -> None:
    """SIGKILL to the EngineCore: the one child that holds the model."""

    def memory(child: psutil.Process) -> int:
        try:
            return int(child.memory_info().rss)
        except psutil.NoSuchProcess:  # one of those that only help at the start
            return 0

    max(below, key=memory).kill()


def press_ctrl_c(process: psutil.Process, _below: list[psutil.Process]) -> None:
    """SIGINT to the whole process group, as a terminal sends it."""
    os.killpg(process.pid, signal.SIGINT)


def all_kinds(folder: Path, run_kills: int, core_kills: int, seed: int = 0, rows: int = ROWS) -> Real:
    """Kills of the run with the engine in its process and apart, kills of the EngineCore, Ctrl-C; each run then compared."""
    rng = random.Random(seed)
    real = Real()
    input_ = write_input(folder / "rows.jsonl", rows)
    references = {}
    for cache in (True, False):
        references[cache] = folder / f"undisturbed-{'with' if cache else 'without'}-prefix-cache"
        session(make_job(input_, references[cache], in_process=True, prefix_cache=cache), real)
    for in_process, cache in ((True, True), (True, False), (False, True)):
        place = "in this process" if in_process else "in its own process"
        kinds: list[tuple[str, Action]] = [(f"run, engine {place}", kill_run)] * -(-run_kills // 3)
        if not in_process:
            kinds += [("EngineCore", kill_core)] * core_kills + [("Ctrl-C", press_ctrl_c)]
        output = folder / f"disturbed-{'in' if in_process else 'out'}-{'with' if cache else 'without'}-prefix-cache"
        job = make_job(input_, output, in_process=in_process, prefix_cache=cache)
        step = rows // (len(kinds) + 1)
        code = None
        for number, (kind, act) in enumerate(kinds, start=1):
            code = session(job, real, at=number * step - rng.randrange(step // 2), act=act)
            real.killed(kind)
            wanted = {kill_run: -signal.SIGKILL, press_ctrl_c: 130}.get(act)
            if wanted is not None and code != wanted:
                real.problems.append(f"{kind}: exit code {code}")
            if (
                code in (0, 3) and act is kill_core
            ):  # it was survived within the session: the next kill needs a run of its own
                take(real, output, references[cache], byte_for_byte=not cache)
                output = folder / f"{output.name}-{number}"
                job = make_job(input_, output, in_process=in_process, prefix_cache=cache)
        if code not in (0, 3):
            code = session(job, real)
        if code not in (0, 3):
            real.problems.append(f"{output.name}: exit code {code}")
        else:
            take(real, output, references[cache], byte_for_byte=not cache)
    return real


def take(real: Real, output: Path, reference: Path, *, byte_for_byte: bool) -> None:
    ours, theirs = ((folder / "results.jsonl").read_bytes().splitlines() for folder in (output, reference))
    indexes = [json.loads(line)["index"] for line in ours]
    lost, doubled = len(theirs) - len(set(indexes)), len(indexes) - len(set(indexes))
    if not byte_for_byte:
        ours, theirs = ([_without_cached(line) for line in lines] for lines in (ours, theirs))
    problems = tuple(problem for check in audit(output).checks for problem in check.problems)
    real.take(output.name, sessions.Verdict(lost, doubled, ours == theirs, problems))


def _without_cached(line: bytes) -> bytes:
    """What the prefix cache happened to hold is the one thing that may differ between two runs."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key != "cached_tokens"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return json.dumps(strip(json.loads(line)), ensure_ascii=False).encode()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
