"""Records what the terminal shows of a real run, as the SVG picture of the README: the live view half-way, then the summary.

    python eval/docs/record_terminal.py docs/run.svg [--engine scripted] [--at 0.5]

It is one of the demo's jobs, by default on the real vLLM engine, run in a folder of its own under the names that a reader
would use.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmbatch.core.events import EngineReady, Event, Snapshot
from llmbatch.demo.demo import HERE, JOBS
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.report.summary import print_summary
from llmbatch.runs.session import RunResult, run_job
from llmbatch.watch.live import LiveView

WIDTH = 100


class Recorder:
    """A watcher that keeps one view, as text in colour, of when a share ``at`` of the rows was done."""

    def __init__(self, at: float) -> None:
        self._console = _console()
        self._view = LiveView(self._console)
        self._at = at
        self.picture: Text | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, EngineReady):
            event = replace(event, description=event.description.replace(str(DEMO_MODEL), "demo"))
        self._view(event)
        if (
            isinstance(event, Snapshot)
            and self.picture is None
            and event.rows >= self._at * (event.rows_total or event.rows + 1)
        ):
            with self._console.capture() as capture:
                self._console.print(self._view.render())
            self.picture = Text.from_ansi(capture.get())


def record(name: str, engine: str, recorder: Recorder) -> RunResult:
    """Run a job of the demo in a temporary folder that is the current one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(HERE / "corpus" / f"{name}.jsonl", f"{name}.jsonl")
        shutil.copy(HERE / "prompts" / f"{JOBS[name]}.yaml", f"{JOBS[name]}.yaml")
        sections = {
            "engine": {"name": engine},
            "prompt": f"{JOBS[name]}.yaml",
            "input": f"{name}.jsonl",
            "output": name,
        }
        return run_job(job_from({"model": "demo", **sections}), [recorder])


def _console() -> Console:
    return Console(width=WIDTH, record=True, force_terminal=True, color_system="truecolor", file=io.StringIO())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--job", default="numbers", choices=sorted(JOBS))
    parser.add_argument("--at", type=float, default=0.5, help="share of the rows after which the view is kept")
    options = parser.parse_args()
    name = options.job
    recorder = Recorder(options.at)
    result = record(name, options.engine, recorder)
    console = _console()
    command = f"llmbatch run --model demo --prompt {JOBS[name]}.yaml --input {name}.jsonl --output {name}"
    console.print(Text(f"$ {command}", style="bold"))
    if recorder.picture is not None:
        console.print(recorder.picture)
    print_summary(console, result.report)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(options.svg), title="llmbatch")


if __name__ == "__main__":
    main()
