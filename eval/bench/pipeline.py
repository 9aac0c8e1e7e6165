"""The pipeline without a model: the scripted engine answers at once, so that what is left is llmbatch's own work.

Each figure is measured in processes of their own, pinned to one core. In them this file is the program:

    python pipeline.py SOURCE OUTPUT BEGAN [--tokenizer] [--stop-at ROWS] [--workers COUNT]

runs one job and prints a JSON line: rows, seconds of the run, seconds from the process's start to its first answer.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import machine
import psutil
import shapes

if TYPE_CHECKING:
    from llmbatch.core.events import Event
    from llmbatch.core.types import Outcome
    from llmbatch.engines.base import Engine
    from llmbatch.engines.feed import Feed

HERE = Path(__file__).resolve().parent
MILLION = 1_000_000
_SAMPLE_SECONDS = 0.25
_EARLY = 0.2  # share of a run that the slope leaves out: caches and pools fill up
_HALF = 0.5


def measure(name: str, scale: float, repetitions: int, folder: Path) -> tuple[machine.Use, dict[str, Any]]:
    """One figure, and what else happened on the machine meanwhile."""
    meter = machine.Meter(os.getpid())
    figure = FIGURES[name](scale, repetitions, folder)
    return meter.read(), figure


def throughput(scale: float, repetitions: int, folder: Path) -> dict[str, Any]:
    """Rows a second of whole runs, from the input file to ``results.jsonl``, with the scripted engine's bytes as tokens."""
    return _throughput(round(100_000 * scale), repetitions, folder)


def throughput_with_tokenizer(scale: float, repetitions: int, folder: Path) -> dict[str, Any]:
    """The same with the demo model's chat template and tokenizer."""
    return _throughput(round(100_000 * scale), repetitions, folder, "--tokenizer")


def million(scale: float, _repetitions: int, folder: Path) -> dict[str, Any]:
    """A million rows in bounded memory, stopped there; then the start of the same command again."""
    done = round(MILLION * scale)
    source = rows_file(done + 32_768, folder)  # more than are done before the stop takes effect
    output = _fresh(folder / "million")
    first = _run(source, output, "--stop-at", str(done))
    again = _run(source, output)
    shutil.rmtree(output)
    samples = first.pop("rss")
    first_rows, first_seconds = first["rows"], first["seconds"]
    return {
        "rows": first_rows,
        "rows_per_second": first_rows / first_seconds,
        "rss_peak_mib": max(max(mib for _, mib in samples), max(mib for _, mib in again["rss"])),
        "rss_slope_mib_per_million_rows": _slope(samples, _EARLY) * first_seconds / first_rows * MILLION,
        "rss_slope_of_the_second_half": _slope(samples, _HALF) * first_seconds / first_rows * MILLION,
        "rss_mib": [(round(at, 1), round(mib, 1)) for at, mib in samples[:: max(len(samples) // 100, 1)]],
        "torch": first["torch"],
        "resumed_first_answer_seconds": again["first_answer_seconds"],
        "resumed_rows": again["rows"],
    }


def help_seconds(_scale: float, repetitions: int, _folder: Path) -> dict[str, Any]:
    """``llmbatch --help``, as a whole process."""
    runs = [_command(["--help"]) for _ in range(max(repetitions, 5))]
    return {"seconds": median(run["seconds"] for run in runs), "all_seconds": [run["seconds"] for run in runs]}


def render(scale: float, repetitions: int, folder: Path) -> dict[str, Any]:
    """``llmbatch render``, as a whole process, from the input file to a file of requests."""
    rows = round(100_000 * scale)
    prompt = str(shapes.DEMO / "prompts" / f"{shapes.TRANSLATE}.yaml")
    options = ["--prompt", prompt, "--input", str(rows_file(rows, folder)), "--output", str(folder / "rendered.jsonl")]
    runs = [_command(["render", *options]) for _ in range(repetitions)]
    return {
        "rows": rows,
        "rows_per_second": rows / median(run["seconds"] for run in runs),
        "all_seconds": [run["seconds"] for run in runs],
        "rss_peak_mib": max(run["rss_peak_mib"] for run in runs),
    }


def workers(scale: float, repetitions: int, folder: Path) -> dict[str, Any]:
    """Row workers on all cores, with and without the tokenizer; without any, with one and with two, in turns.

    What a row takes of the process that drives the engine, and of its workers, is the difference between a long run and a short
    one: so the start of processes is left out, and the first window, which no worker has. Of that follows what more cores would
    do, where one of them is the driver's: by arithmetic, and not measured.
    """
    short, long = (round(rows * scale) for rows in (100_000, 300_000))
    found: dict[str, Any] = {"rows": long, "cores": len(os.sched_getaffinity(0))}
    for name, options in (("without tokenization", ()), ("with the tokenizer", ("--tokenizer",))):
        runs: dict[int, list[dict[str, float]]] = {0: [], 1: [], 2: []}
        for _ in range(repetitions):
            for count, of_count in runs.items():
                ends = [
                    _run(
                        rows_file(rows, folder),
                        _fresh(folder / "workers"),
                        *options,
                        "--workers",
                        str(count),
                        one_core=False,
                    )
                    for rows in (short, long)
                ]
                taken = {
                    key: ends[1][key] - ends[0][key] for key in ("seconds", "cpu_seconds", "cpu_seconds_of_workers")
                }
                peak = max(mib for _, mib in ends[1]["rss"])
                of_count.append({**taken, "rows_per_second": (long - short) / taken["seconds"], "rss_peak_mib": peak})
        found[name] = {
            str(count): {key: median(run[key] for run in of_count) for key in of_count[0]}
            | {"all_rows_per_second": [run["rows_per_second"] for run in of_count]}
            for count, of_count in runs.items()
        }
        driver, beside = (found[name]["2"][key] / (long - short) for key in ("cpu_seconds", "cpu_seconds_of_workers"))
        found[name]["microseconds_a_row"] = {"driver": driver * 1e6, "workers": beside * 1e6}
        found[name]["by_arithmetic"] = {str(cores): min(1 / driver, (cores - 1) / beside) for cores in (4, 8)}
    return found


FIGURES: dict[str, Callable[[float, int, Path], dict[str, Any]]] = {
    "throughput": throughput,
    "throughput_with_tokenizer": throughput_with_tokenizer,
    "workers": workers,
    "million": million,
    "help": help_seconds,
    "render": render,
}


def _throughput(rows: int, repetitions: int, folder: Path, *options: str) -> dict[str, Any]:
    source = rows_file(rows, folder)
    runs = [_run(source, _fresh(folder / "throughput"), *options) for _ in range(repetitions)]
    return {
        "rows": rows,
        "rows_per_second": rows / median(run["seconds"] for run in runs),
        "all_rows_per_second": [rows / run["seconds"] for run in runs],
        "cpu_seconds": [run["cpu_seconds"] for run in runs],
        "rss_peak_mib": max(mib for run in runs for _, mib in run["rss"]),
        "torch": any(run["torch"] for run in runs),
    }


def rows_file(count: int, folder: Path) -> Path:
    """So many rows of the translation task; they repeat after some ten thousand, but no two have the same text."""
    path = folder / f"rows-{count}.jsonl"
    if not path.exists():
        rng = random.Random("pipeline")
        texts = [shapes.number_row(rng) for _ in range(10_000)]
        with path.open("w", encoding="utf-8") as file:
            for i in range(count):
                row = texts[i % len(texts)]
                file.write(
                    json.dumps({"id": f"row-{i}", "text": f"{row['text']} {i}", "language": row["language"]}) + "\n"
                )
    return path


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def _run(source: Path, output: Path, *options: str, one_core: bool = True) -> dict[str, Any]:
    """One job in a process of its own, on one core or all, with the memory of it and its workers looked at while it runs."""
    began = time.time()
    command = [sys.executable, "-m", "pipeline", str(source), str(output), repr(began), *options]
    process = subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.PIPE, text=True, preexec_fn=_on_one_core if one_core else None
    )
    samples, started, watched = [], time.perf_counter(), psutil.Process(process.pid)
    while process.poll() is None:
        try:
            here = watched.memory_info().rss
            beside = sum(child.memory_info().rss for child in watched.children())
        except psutil.NoSuchProcess:
            continue
        samples.append((time.perf_counter() - started, (here + beside) / 2**20))
        time.sleep(_SAMPLE_SECONDS)
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the pipeline ended with exit code {process.returncode}")
    return {**json.loads(said.splitlines()[-1]), "rss": samples}


def _command(arguments: Sequence[str]) -> dict[str, float]:
    """One ``llmbatch`` command on one core: seconds, and the peak of its memory."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("llmbatch")), *arguments],
        stdout=subprocess.DEVNULL,
        preexec_fn=_on_one_core,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"llmbatch {arguments[0]} ended with exit code {process.returncode}")
    return {"seconds": time.perf_counter() - began, "rss_peak_mib": usage.ru_maxrss / 1024}


def _on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _slope(samples: Sequence[tuple[float, float]], early: float) -> float:
    """MiB a second by least squares, without so large a share of the run at its start."""
    kept = [(at, mib) for at, mib in samples if at >= early * samples[-1][0]]
    mean_at, mean_mib = (sum(values) / len(kept) for values in zip(*kept, strict=True))
    spread = sum((at - mean_at) ** 2 for at, _ in kept)
    return sum((at - mean_at) * (mib - mean_mib) for at, mib in kept) / spread if spread else 0.0


class _FirstAnswer:
    """An engine that notes when it gave its first answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.at: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        for outcomes in self._engine.stream(feed):
            if outcomes and self.at is None:
                self.at = time.time()
            yield outcomes


def main(source: str, output: str, began: str, *options: str) -> None:
    from llmbatch.core.events import Snapshot
    from llmbatch.engines.kinds import make_engine
    from llmbatch.job.job import job_from
    from llmbatch.model.tokenizer import ChatSettings, load_tokenizer
    from llmbatch.runs.session import run_job

    if "--tokenizer" in options:
        load_tokenizer(str(shapes.MODEL), ChatSettings(), without_torch=True)  # so for the whole process
    count = int(options[options.index("--workers") + 1]) if "--workers" in options else 0
    engines: list[_FirstAnswer] = []
    stop_at = int(options[options.index("--stop-at") + 1]) if "--stop-at" in options else None

    def make(*arguments: Any) -> Engine:
        engines.append(_FirstAnswer(make_engine(*arguments)))
        return engines[-1]

    def watch(event: Event) -> None:
        if stop_at is not None and isinstance(event, Snapshot) and event.rows >= stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    job = job_from(
        {
            "model": "demo",
            "prompt": str(shapes.DEMO / "prompts" / f"{shapes.TRANSLATE}.yaml"),
            "input": source,
            "output": output,
            "engine": {
                "name": "scripted",
                "args": {"tokenizer": str(shapes.MODEL)} if "--tokenizer" in options else {},
            },
            # what the pass ahead of an order for all of the input takes is a figure of ``corpus.py``
            "run": {"order": "window", "workers": count},
        }
    )
    started = time.perf_counter()
    result = run_job(job, [watch], make=make)
    seconds = time.perf_counter() - started
    usage, beside = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    first = engines[-1].at
    print(
        json.dumps(
            {
                "rows": result.report["sessions"][-1]["rows"],
                "seconds": seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "cpu_seconds_of_workers": beside.ru_utime + beside.ru_stime,
                "first_answer_seconds": None if first is None else first - float(began),
                "torch": sys.modules.get("torch") is not None,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
