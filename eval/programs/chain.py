"""A chain of three steps against three runs one after another, and what a kill at half costs; figures out.

    python eval/programs/chain.py [--rows 2000] [--rounds 3] [--parts speed,apart,kill] [--results chain.json]

Real vLLM with the demo model. Each row has a document of its own, which the prompts of all steps begin with, as where a text is
asked about, the answer checked, and the check explained; ``apart`` is the same with prompts that share nothing. The three runs find
the engine started, as the chain does, and pass their answers on by a file; the two take turns, each beginning with an empty prefix
cache. Both give the same answers. The chain must be 1.2 times as fast, and a kill must cost only what was in flight.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "bench")]

import machine  # noqa: E402
import shapes  # noqa: E402

if TYPE_CHECKING:
    from llmbatch.core.types import Outcome
    from llmbatch.engines.feed import Feed
    from llmbatch.engines.keeper import EngineKeeper

MUST_REACH = 1.2
NUMBERS = 48  # in a document, which make some 550 tokens
STEPS = ("first", "second", "third")
_AGAIN = 3  # disturbed rounds that are run again
# The cache holds some hundred documents: more than are in flight, and a part of the corpus, as on a GPU.
ENGINE = {"args": {"kv_cache_memory_bytes": 256 << 20, "max_num_seqs": 32}}


def write_input(path: Path, rows: int) -> Path:
    """Documents of words that no two rows have in the same order, and a number to be translated with each."""
    rng = random.Random("chain")
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            numbers = (shapes.number_row(rng)["text"] for _ in range(NUMBERS))
            row = {"id": f"row-{i}", "document": "; ".join(numbers), **shapes.number_row(rng)}
            file.write(json.dumps(row) + "\n")
    return path


def prompt(earlier: str, *, apart: str = "") -> dict[str, Any]:
    """A prompt about the document and what came before, which begins with the document, or with a word of its own."""
    names = ("document", "language", earlier)
    return {
        "name": "step",
        "description": "One step.",
        "variables": {name: {"type": "string"} for name in names},
        "messages": [
            {"role": "system", "content": f"{apart}{{{{ document }}}}. Translate to {{{{ language }}}}."},
            {"role": "user", "content": f"{{{{ {earlier} }}}}"},
        ],
        "sampling": {"temperature": 0, "max_tokens": 24},
    }


def write_prompts(folder: Path, *, apart: bool) -> list[str]:
    """The prompts of the three steps, by their paths."""
    paths = []
    for step, earlier in zip(STEPS, ("text", *STEPS), strict=False):
        path = folder / f"{step}{'-apart' if apart else ''}.yaml"
        path.write_text(json.dumps(prompt(earlier, apart=f"{step.capitalize()}: " if apart else "")), encoding="utf-8")
        paths.append(str(path))
    return paths


def job_data(source: Path, output: Path, path: str, **sections: Any) -> dict[str, Any]:
    """A job with one of the prompts. Answers are not tried again, so that both ways do the same work."""
    common = {"model": "demo", "prompt": path, "input": str(source), "output": str(output), "engine": ENGINE}
    return {
        **common,
        "retry": {"max_attempts": 1},
        "plan": {"fold": False},
        "answer": {"allow_truncated": True},
        **sections,
    }


def chain_data(source: Path, output: Path, paths: Sequence[str]) -> dict[str, Any]:
    first, second, third = STEPS
    lenient = {"answer": {"allow_truncated": True, "allow_empty": True}}
    prompts = {second: {"path": paths[1], **lenient}, third: {"path": paths[2], **lenient}}
    program = {
        "name": "chain",
        "prompts": prompts,
        "settings": {"steps": [{"name": first, "prompt": "main"}, second, third]},
    }
    return job_data(source, output, paths[0], program=program)


# the two ways


class Done(NamedTuple):
    """The last answer of each row, and the prompt tokens of all runs that the prefix cache did not have."""

    answers: list[str]
    computed: int


def as_chain(source: Path, folder: Path, paths: Sequence[str], keeper: EngineKeeper) -> Done:
    """One run of three steps."""
    return _run(chain_data(source, folder / "out", paths), keeper)


def one_after_another(source: Path, folder: Path, paths: Sequence[str], keeper: EngineKeeper) -> Done:
    """Three runs, each with the answers of the one before as a field of its rows."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    answers: list[str] = []
    computed = 0
    for step, path in zip(STEPS, paths, strict=True):
        answers, more = _run(job_data(source, folder / step, path), keeper)
        computed += more
        source = folder / f"{step}.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for row, answer in zip(rows, answers, strict=True):
                row[step] = answer
                file.write(json.dumps(row) + "\n")
    return Done(answers, computed)


def _run(data: Mapping[str, Any], keeper: EngineKeeper) -> Done:
    from llmbatch.job.job import job_from
    from llmbatch.runs.session import run_job

    result = run_job(job_from(data), make=keeper.make)
    tokens = result.report["tokens"]["total"]
    answers = [json.loads(line)["output"] or "" for line in _lines(result.folder)]
    return Done(answers, tokens["prompt_tokens"] - tokens["cached_tokens"])


Way = Callable[..., Done]
WAYS: dict[str, Way] = {"chain": as_chain, "one after another": one_after_another}


def speed(source: Path, folder: Path, rounds: int, *, apart: bool) -> dict[str, Any]:
    """The two ways in turn; the engine's start and a first try are not counted. Disturbed rounds are run again, a few times."""
    from llmbatch.engines.keeper import EngineKeeper

    paths = write_prompts(folder, apart=apart)
    kept: list[dict[str, Turn]] = []
    disturbed = 0
    with EngineKeeper() as keeper:
        few = write_input(folder / "few.jsonl", 16)
        for name, way in WAYS.items():
            way(few, _fresh(folder / f"warm-{name}"), paths, keeper)
        while len(kept) < rounds:
            turns = {
                name: _turn(WAYS[name], source, folder / name, paths, keeper)
                for name in sorted(WAYS, reverse=bool(len(kept) % 2))
            }
            elsewhere = max(turn.elsewhere for turn in turns.values())
            said = ", ".join(f"{name} {turn.seconds:.1f} s" for name, turn in turns.items())
            print(f"{said}; elsewhere {elsewhere:.1%}", flush=True)
            if elsewhere <= machine.ELSEWHERE or disturbed == _AGAIN:
                kept.append(turns)
            else:
                disturbed += 1
    one, other = ([turns[name] for turns in kept] for name in WAYS)
    return {
        "seconds": {name: [turns[name].seconds for turns in kept] for name in WAYS},
        "times_as_fast": median(b.seconds / a.seconds for a, b in zip(one, other, strict=True)),
        "prompt_tokens_computed": {name: kept[-1][name].done.computed for name in WAYS},
        "differing_answers": sum(x != y for x, y in zip(one[-1].done.answers, other[-1].done.answers, strict=True)),
        "elsewhere": max(turn.elsewhere for turn in (*one, *other)),
        "disturbed_rounds": disturbed,
    }


class Turn(NamedTuple):
    """One way, once: how long it took, what came of it, and what share of the processors others had meanwhile."""

    seconds: float
    elsewhere: float
    done: Done


def _turn(way: Way, source: Path, folder: Path, paths: Sequence[str], keeper: EngineKeeper) -> Turn:
    keeper._engine._llm.reset_prefix_cache()  # type: ignore[union-attr]
    _fresh(folder)
    machine.settle()
    meter = machine.Meter(os.getpid())
    done = way(source, folder, paths, keeper)
    use = meter.read()
    return Turn(use.seconds, use.elsewhere, done)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


# a kill


class Tally:
    """What the engine of a process answered and has in flight, in a file that outlives it."""

    _FORM = "qqqq"

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(struct.calcsize(self._FORM)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def read(self) -> dict[str, int]:
        names = ("answers", "tokens", "in_flight", "in_flight_tokens")
        return dict(zip(names, struct.unpack(self._FORM, self._memory), strict=True))

    def count(self, outcomes: Sequence[Outcome], feed: Feed) -> None:
        from llmbatch.core.types import Completion

        now = self.read()
        usages = [outcome.usage for outcome in outcomes if isinstance(outcome, Completion)]
        tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
        waiting = list(feed.in_flight.values())
        in_flight = sum(
            len(request.token_ids or ()) + int(request.sampling.get("max_tokens") or 0) for request in waiting
        )
        values = (now["answers"] + len(usages), now["tokens"] + tokens, len(waiting), in_flight)
        self._memory[:] = struct.pack(self._FORM, *values)


def session(job: Path, tally: Path) -> None:
    """One session of a job, as a process of its own that may be killed."""
    from llmbatch.engines.kinds import make_engine
    from llmbatch.job.job import job_from
    from llmbatch.runs.session import run_job

    counted = Tally(tally)

    def make(*arguments: Any) -> Any:
        engine: Any = make_engine(*arguments)
        inner = engine.stream

        def stream(feed: Feed) -> Iterator[list[Outcome]]:
            for outcomes in inner(feed):
                counted.count(outcomes, feed)
                yield outcomes

        engine.stream = stream
        return engine

    sys.exit(run_job(job_from(json.loads(job.read_text(encoding="utf-8"))), make=make).exit_code)


def kill(source: Path, folder: Path) -> dict[str, Any]:
    """A run that is killed when half of its answers are there, and finished, against one that is not."""
    paths = write_prompts(folder, apart=False)
    whole = _start(chain_data(source, folder / "whole", paths), folder / "whole.tally")
    if whole.wait() != 0:
        raise SystemExit(f"the run that nobody kills ended with exit code {whole.returncode}")
    one_pass = Tally(folder / "whole.tally").read()
    data, place = chain_data(source, folder / "killed", paths), folder / "killed.tally"
    killed = _start(data, place)
    tally = Tally(place)
    while (at := tally.read())["answers"] < one_pass["answers"] / 2:
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    at = tally.read()  # whatever came in the meantime too
    if _start(data, place).wait() != 0:
        raise SystemExit("the run that was killed could not be finished")
    both = tally.read()
    answers = [[_answer(line) for line in _lines(folder / name)] for name in ("whole", "killed")]
    return {
        "one_pass": {name: one_pass[name] for name in ("answers", "tokens")},
        "at_the_kill": at,
        "redone": {name: both[name] - one_pass[name] for name in ("answers", "tokens")},
        "redone_share": (both["tokens"] - one_pass["tokens"]) / one_pass["tokens"],
        "differing_records": sum(a != b for a, b in zip(*answers, strict=True)),
    }


def _start(data: Mapping[str, Any], tally: Path) -> subprocess.Popen[bytes]:
    job = tally.with_suffix(".json")
    job.write_text(json.dumps(data), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--session", str(job), "--tally", str(tally)]
    )


def _lines(output: Path) -> Iterator[str]:
    with (output / "results.jsonl").open(encoding="utf-8") as file:
        yield from file


def _answer(line: str) -> list[Any]:
    """A record but for what the prefix cache happened to hold."""
    record = json.loads(line)
    return [record["id"], record["status"], record["output"], record["details"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="speed,apart,kill", help="which figures")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--session", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tally", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.session is not None:
        session(options.session, options.tally)
    found: dict[str, Any] = {"machine": machine.describe(), "rows": options.rows}
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory(prefix="chain-") as name:
        folder = Path(name)
        source = write_input(folder / "rows.jsonl", options.rows)
        if "speed" in parts:
            found["speed"] = speed(source, folder, options.rounds, apart=False)
        if "apart" in parts:
            found["apart"] = speed(source, folder, options.rounds, apart=True)
        if "kill" in parts:
            found["kill"] = kill(source, folder)
    found["ok"] = found.get("speed", {}).get("times_as_fast", MUST_REACH) >= MUST_REACH
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "machine"}, indent=1))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
