"""Shapes and arms in; how long each arm takes for each shape out, as ``results.json``.

    python eval/bench/bench.py [--shapes neutral,schema] [--arms ours,chat,tuned] [--repetitions 3] [--parts shapes,pipeline]

Every arm is a process that loads its engine once; then the arms take turns, so that a drift of the machine's speed meets all
of them, and nothing else computes meanwhile. A repetition goes from the input file to an output file on disk, with an empty
prefix cache. A round in which other work took part of the machine is run again; a machine that stays busy ends the run. A peer that
cannot be started is left out, and the results say why.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import machine
import pipeline
import psutil
import shapes

HERE = Path(__file__).resolve().parent
WARM_UP_ROWS = 8  # an arm has started when it has answered so many
_AGAIN = 3  # disturbed rounds that may be run again, for each shape
_START_SECONDS = 600.0  # an arm that has not answered its first rows by then does not run here


class ArmSpec(NamedTuple):
    """How an arm is started, and for which shapes by default (all, neutral or none). ``venv``: where its packages are."""

    title: str
    module: str
    settings: Mapping[str, Any] = {}
    shapes: str = "all"
    venv: str | None = None
    env: Mapping[str, str] = {}


ARMS = {
    "ours": ArmSpec("llmbatch", "arms.ours"),
    "chat": ArmSpec("LLM.chat(list), vLLM's defaults", "arms.chat"),
    "tuned": ArmSpec("LLM.chat(list), llmbatch's engine settings", "arms.chat", {"tuned": True}),
    "run_batch": ArmSpec("vllm run-batch", "arms.run_batch", shapes="neutral"),
    "generate": ArmSpec("transformers generate", "arms.generate", shapes="neutral"),
    "ray_data": ArmSpec("Ray Data LLM", "arms.ray_data", shapes="neutral", venv=".venv-bench"),
    "datatrove": ArmSpec(
        "datatrove's inference runner on `vllm serve`", "arms.datatrove", shapes="neutral", venv=".venv-datatrove"
    ),
    "daft": ArmSpec("Daft's prompt function, its vLLM", "arms.daft", shapes="neutral", venv=".venv-daft"),
    # to find out what a default should be; only when asked for by --arms
    "one_thread": ArmSpec("llmbatch, one OpenMP thread", "arms.ours", shapes="none", env={"OMP_NUM_THREADS": "1"}),
    "own_process": ArmSpec(
        "llmbatch, engine in its own process", "arms.ours", {"job_engine": {"in_process": False}}, shapes="none"
    ),
    "eager": ArmSpec("llmbatch, eager", "arms.ours", {"args": {"enforce_eager": True}}, shapes="none"),
    "float32": ArmSpec("llmbatch, float32", "arms.ours", {"args": {"dtype": "float32"}}, shapes="none"),
}


class Busy(Exception):
    """Something else computes on the machine."""


class CannotRun(Exception):
    """An arm does not run here; the message says why."""


class Worker:
    """One arm's process."""

    def __init__(self, arm: str, engine: Mapping[str, Any], folder: Path) -> None:
        spec = ARMS[arm]
        self.arm, self._folder, self._count = arm, folder, 0
        python = shapes.ROOT / spec.venv / "bin" / "python" if spec.venv else Path(sys.executable)
        if not python.exists():
            raise CannotRun(f"its environment {spec.venv} is not there (`make {spec.venv}/ready`)")
        self._log: IO[bytes] = (folder / f"{arm}.log").open("ab")
        self._began = time.perf_counter()
        settings = {"engine": dict(engine), "python": sys.executable, **spec.settings}
        self._process = subprocess.Popen(
            [str(python), "-m", spec.module, json.dumps(settings)], cwd=HERE, env={**os.environ, **spec.env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.start_up = 0.0

    def start(self, shape: str) -> None:
        """Have it answer a few rows; that is when it has started. Raises ``CannotRun``."""
        source, requests = shapes.write(shape, WARM_UP_ROWS, self._folder)
        self._run(shape, source, requests, _START_SECONDS)
        self.start_up = time.perf_counter() - self._began

    def repeat(self, shape: str, source: Path, requests: Path) -> dict[str, Any]:
        """One repetition: its seconds, what the arm says of it, and what else happened on the machine."""
        self._ask({"do": "reset"})
        os.sync()  # what others left to be written is not this repetition's
        machine.settle()  # vLLM's worker process waits for its next step in a busy loop, for about a second
        meter = machine.Meter(self._process.pid)
        said = self._run(shape, source, requests)
        use = meter.read()
        measured = {**said, "seconds": use.seconds, "cpu_seconds": use.arm, "elsewhere": use.elsewhere}
        if (at_work := measured.pop("seconds_at_work", None)) is not None:
            # it started its engine anew, in processes that came and went: what they used cannot be told from other work
            measured |= {
                "seconds": at_work,
                "seconds_with_start_up": use.seconds,
                "cpu_seconds": None,
                "elsewhere": None,
            }
        return measured

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            first = psutil.Process(self._process.pid)
            for process in (first, *first.children(recursive=True)):  # an arm that hangs may have started a server
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _run(self, shape: str, source: Path, requests: Path, patience: float | None = None) -> dict[str, Any]:
        self._count += 1
        target = self._folder / f"{self.arm}-{shape}-{self._count}"
        target.mkdir()
        paths = {"source": str(source), "requests": str(requests), "target": str(target)}
        said = self._ask({"do": "run", "shape": shape, **paths}, patience)
        return {**said, "answers": str(target / said["answers"])}

    def _ask(self, command: Mapping[str, Any], patience: float | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        if not select.select([self._process.stdout], [], [], patience)[0]:
            raise CannotRun(f"no answer in {patience:.0f} s; the last line of its log: {self._last_line()}")
        answer = self._process.stdout.readline()
        if not answer:
            raise CannotRun(f"it ended: {self._last_line()}")
        said: dict[str, Any] = json.loads(answer)
        return said

    def _last_line(self) -> str:
        """Of its log, and of an error where there is one."""
        lines = Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if "Error:" in line]
        return (errors or lines or ["its log is empty"])[-1].strip().replace(f"{shapes.ROOT}/", "")[:300]


def measure_shape(
    name: str, workers: Sequence[Worker], not_run: dict[str, str], options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """All rounds of one shape. Raises ``Busy`` where the machine does not keep quiet; a peer that ends goes to ``not_run``."""
    shape = shapes.SHAPES[name]
    rows = max(round(shape.rows * options.scale), 16)
    source, requests = shapes.write(name, rows, folder)
    rounds: list[dict[str, dict[str, Any]]] = []  # every arm once, in an order that moves on from round to round
    disturbed, worst_kept = 0, 0.0
    while len(rounds) < options.repetitions:
        turn = len(rounds) % len(workers)
        done = dict[str, dict[str, Any]]()
        for worker in (*workers[turn:], *workers[:turn]):
            try:
                done[worker.arm] = worker.repeat(name, source, requests)
            except CannotRun as reason:
                if ARMS[worker.arm].shapes == "all":
                    raise
                not_run[worker.arm] = str(reason)
                print(f"{worker.arm} does not go on: {reason}", flush=True)
        workers = [worker for worker in workers if worker.arm not in not_run]
        seconds = ", ".join(f"{arm} {said['seconds']:.2f} s" for arm, said in done.items())
        worst = max((said["elsewhere"] for said in done.values() if said["elsewhere"] is not None), default=0.0)
        print(f"{name}: {seconds}; elsewhere at most {worst:.1%}", flush=True)
        if worst <= options.elsewhere or options.force:
            rounds.append(done)
            worst_kept = max(worst, worst_kept)
        elif disturbed < _AGAIN:
            disturbed += 1
        else:
            raise Busy(
                f"{name}: other work took up to {worst:.0%} of the processors, in the last of {_AGAIN + 1} disturbed rounds"
            )
    last = rounds[-1]
    answers = {arm: _answers(Path(last[arm]["answers"])) for arm in last}
    constrained = _constrained(requests)
    block = (last["ours"]["engine"] or {}).get("block_size") if "ours" in last else None
    return {
        "title": shape.title, "note": shape.note, "source": shape.source(), "rows": rows, "must_reach": shape.must_reach,
        "engine": dict(shape.engine),
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "scale": options.scale,
        "disturbed_rounds": disturbed,
        "elsewhere": worst_kept, "quiet": worst_kept <= options.elsewhere,
        "start_up": {worker.arm: worker.start_up for worker in workers},
        "rounds": [_without_paths(done) for done in rounds],
        "equal": {
            arm: _equal(answers["chat"], answers[arm], constrained)
            for arm in answers if "chat" in answers and arm != "chat"
        },
        "hit_rate_possible": shapes.possible_hit_rate(source, name, block) if block else None,
    }  # fmt: skip


def _answers(path: Path) -> dict[str, Any]:
    """Row id -> its answer, of any arm's output: text, or the value under a schema."""
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    found: dict[str, Any] = {}
    for file in files:
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "custom_id" in line:
                found[line["custom_id"]] = line["response"]["body"]["choices"][0]["message"]["content"]
            elif "text" in line:
                found[line["id"]] = line["text"]
            else:
                found[line["id"]] = line["output"] if line.get("raw") is None else line["raw"]
    return found


def _constrained(requests: Path) -> set[str]:
    """The ids of the rows that have a schema."""
    lines = map(json.loads, requests.read_text(encoding="utf-8").splitlines())
    return {line["custom_id"] for line in lines if "response_format" in line["body"]}


def _equal(theirs: Mapping[str, Any], ours: Mapping[str, Any], constrained: set[str]) -> dict[str, dict[str, int]]:
    """How many rows have the answer that ``theirs`` has, of how many: in all, and apart where only some have a schema.

    JSON counts by its value, because llmbatch writes that and spaces differ.
    """
    kinds = {"all": set(theirs)}
    if constrained and constrained != kinds["all"]:
        kinds |= {"with a schema": kinds["all"] & constrained, "without": kinds["all"] - constrained}
    return {
        kind: {"rows": len(rows), "equal": sum(bool(_value(theirs[row]) == _value(ours.get(row))) for row in rows)}
        for kind, rows in kinds.items()
    }


def _value(answer: Any) -> Any:
    if isinstance(answer, str) and answer.startswith("{"):
        try:
            return json.loads(answer)
        except ValueError:
            return answer
    return answer


def _without_paths(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    kept: dict[str, dict[str, Any]] = {}
    for arm, said in arms.items():
        kept[arm] = {key: value for key, value in said.items() if key != "answers"}
        if engine := kept[arm].get("engine"):
            kept[arm]["engine"] = {key: value for key, value in engine.items() if key not in ("model", "pids")}
    return kept


@contextmanager
def started(
    arms: Sequence[str], engine: Mapping[str, Any], shape: str, folder: Path
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """The arms with these engine settings, started one after another; and why some peers were not."""
    with ExitStack() as stack:
        workers, not_run = list[Worker](), dict[str, str]()
        for arm in arms:
            try:
                with ExitStack() as starting:
                    worker = Worker(arm, engine, folder)
                    starting.callback(worker.close)
                    worker.start(shape)
                    stack.push(starting.pop_all())
            except CannotRun as reason:
                if ARMS[arm].shapes == "all":
                    raise SystemExit(f"{arm}: {reason}; its log is {folder / arm}.log") from None
                not_run[arm] = str(reason)
                print(f"{arm} does not run: {reason}", flush=True)
                continue
            print(f"{arm} has started: {worker.start_up:.1f} s", flush=True)
            workers.append(worker)
        yield workers, not_run


def groups(names: Sequence[str]) -> Iterator[list[str]]:
    """Shapes with the same engine settings, which can share started engines."""
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(json.dumps(dict(shapes.SHAPES[name].engine)), []).append(name)
    yield from known.values()


def arms_of(names: Sequence[str], asked: str | None) -> list[str]:
    """The arms that take part in any of these shapes."""
    if asked:
        return asked.split(",")
    return [arm for arm, spec in ARMS.items() if spec.shapes in ("all", *names)]


class Results:
    """The file of results: what is measured anew replaces what was there."""

    def __init__(self, path: Path, *, forced: bool) -> None:
        self._path, self._forced = path, forced
        self.data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def put_not_run(self, asked: Sequence[str], reasons: Mapping[str, str]) -> None:
        """Of the arms that were asked for: why some did not run."""
        kept = {arm: why for arm, why in self.data.get("not_run", {}).items() if arm not in asked}
        self.data["not_run"] = {**kept, **reasons}

    def put(self, section: str, name: str, value: dict[str, Any]) -> None:
        self.data["machine"] = machine.describe()
        self.data["arms"] = {arm: spec.title for arm, spec in ARMS.items()}
        self.data.setdefault(section, {})[name] = {**value, "forced": self._forced}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(shapes.SHAPES), help="which shapes, with commas between")
    parser.add_argument(
        "--arms", help=f"which arms: {', '.join(ARMS)}; by default run-batch and other peers for neutral only"
    )
    parser.add_argument("--parts", default="shapes,pipeline", help="shapes, pipeline, or both")
    parser.add_argument("--figures", default=",".join(pipeline.FIGURES), help="which figures of the pipeline")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, to try it out")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument(
        "--elsewhere",
        type=float,
        default=machine.ELSEWHERE,
        help="share of the processors that may be in use by others",
    )
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for a quiet machine")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too; the results then say so")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    work = HERE / ".work" / str(os.getpid())
    work.mkdir(parents=True)
    results = Results(options.results, forced=options.force)
    machine.insist_on_quiet(force=options.force, patience=options.patience, limit=options.elsewhere)
    parts = options.parts.split(",")
    try:
        if "shapes" in parts:
            for names in groups(options.shapes.split(",")):
                arms = arms_of(names, options.arms)
                with started(arms, shapes.SHAPES[names[0]].engine, names[0], work) as (workers, not_run):
                    for name in names:
                        asked = [arm for arm in arms_of([name], options.arms) if arm not in not_run]
                        taking_part = [worker for worker in workers if worker.arm in asked]
                        figures = measure_shape(name, taking_part, not_run, options, work)
                        results.put_not_run(arms, not_run)
                        results.put("shapes", name, figures)
        if "pipeline" in parts:
            for name in options.figures.split(","):
                use, figure = pipeline.measure(name, options.scale, options.repetitions, work)
                print(f"{name}: {json.dumps(figure)[:300]}; elsewhere {use.elsewhere:.1%}", flush=True)
                quiet = use.elsewhere <= options.elsewhere
                if not quiet and not options.force:
                    raise Busy(f"{name}: other work took {use.elsewhere:.0%} of the processors")
                results.put("pipeline", name, {**figure, "use": asdict(use), "quiet": quiet, "scale": options.scale})
    except Busy as busy:
        raise SystemExit(f"{busy}. It is not in the results; --force measures all the same") from None
    except CannotRun as reason:
        raise SystemExit(f"an arm did not go on: {reason}. Its logs are in {work}") from None
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
