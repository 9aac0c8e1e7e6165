"""Summaries of long documents by map_reduce against the same level by level, with a barrier after each; figures out.

    python eval/programs/map_reduce.py [--documents 200] [--rounds 3] [--answers even,skewed,steady] [--parts speed,kill]
                                     [--results FILE]

Real vLLM, documents of very different lengths. With ``map_reduce`` it is one run. Level by level it is a run of all chunks, then
one of each level of reductions: the same chunks and the same reductions. Both cut the documents, which is counted. All runs find
the engine started; the two ways take turns, each with an empty prefix cache at its beginning. ``map_reduce`` must be 1.3 times as
fast.

A level by itself ends with fewer and fewer requests in flight, and the higher ones have but a handful. What that costs depends on
how long the last ones take, and so on the answers:

- ``even``: the demo model's, from 48 to 192 tokens, hardly one much longer than the mean. Both ways give the same answers.
- ``skewed``: as where a model thinks before it answers, most are short and a few many times as long: each token ends the answer
  with the same probability, 64 tokens in the mean. The model has the demo model's size and random weights, as only time counts;
  the two ways draw different answers of the same lengths in the mean, and the tokens that each had to do are said beside.

Measured on two processors without a GPU, real vLLM: even answers, 200 documents, two rounds, 0.91 and 0.93 times as fast; skewed
ones, 100 documents, one round, 0.89. There a step takes nearly as long as it has tokens, so that a level's last few answers come
the faster, and waiting for them costs little. Where a step takes as long with few requests as with many, as on a GPU that is not
full, the scripted engine stands for it: 1.58 times in the engine's time, 1.24 in all (200 documents, 1,249 chunks in six levels).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "bench")]

import chain  # noqa: E402
import machine  # noqa: E402
import shapes  # noqa: E402

if TYPE_CHECKING:
    from llmbatch.core.types import Outcome
    from llmbatch.engines.feed import Feed
    from llmbatch.engines.keeper import EngineKeeper

MUST_REACH = 1.3
_AGAIN = 3  # disturbed rounds that are run again
_SENTENCE = 4  # numbers
CHUNK = 96  # tokens
ANSWER = 192  # tokens, at most
SETTINGS = {"chunk": CHUNK, "whole": False, "most": 3}


class Answers(NamedTuple):
    """How long answers come out: the engine and the sampling that make them so."""

    name: str
    sampling: dict[str, Any]
    engine: dict[str, Any]  # arguments
    sequences: int  # at a time
    scripted: bool = False


_MEAN = 64  # tokens of a skewed answer
_ENDS = list(range(100, 100 + 512 // _MEAN - 1))  # so many of the vocabulary's 512, with the model's own, end an answer
_SAID = "one hundred and one; two hundred and two; three hundred and three. " * 2
DEMO = str(HERE.parents[1] / "llmbatch" / "demo" / "model")
ANSWERS = {
    "even": Answers(
        "even", {"temperature": 0, "min_tokens": CHUNK // 2, "max_tokens": ANSWER}, {"max_num_seqs": 256}, 256
    ),  # vLLM's default
    "skewed": Answers(
        "skewed",
        {"temperature": 1, "stop_token_ids": _ENDS, "max_tokens": 8 * _MEAN},
        {"max_num_seqs": 64, "load_format": "dummy"},
        64,
    ),
    "steady": Answers(
        "steady",
        {"temperature": 0, "max_tokens": ANSWER},
        {"latency": 0.5, "jitter": 0.9, "concurrency": 256, "tokenizer": DEMO, "rules": [{"answer": _SAID}]},
        256,
        scripted=True,
    ),
}


def write_input(path: Path, documents: int) -> Path:
    """Documents of 1 to some 200 chunks, half of them of no more than 3: log-normal, as lengths of documents are."""
    rng = random.Random("map_reduce")
    with path.open("w", encoding="utf-8") as file:
        for i in range(documents):
            tokens = CHUNK * min(200.0, math.exp(rng.gauss(math.log(2.5), 1.5)))
            sentences: list[str] = []
            while sum(map(len, sentences)) < tokens * 1.5:  # characters, of which a token has some
                sentences.append("; ".join(shapes.number_row(rng)["text"] for _ in range(_SENTENCE)).capitalize() + ".")
            file.write(json.dumps({"id": f"document-{i}", "text": " ".join(sentences)}) + "\n")
    return path


def prompt(language: str, takes: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "step",
        "description": "One level.",
        "variables": {takes: {"type": "string"}},
        "messages": [
            {"role": "system", "content": f"Translate to {language}."},
            {"role": "user", "content": f"{{{{ {takes} }}}}"},
        ],
        "sampling": dict(sampling),
    }


class Task(NamedTuple):
    """What both ways do: the documents, and the prompts of chunks and of reductions, by their paths."""

    source: Path
    paths: tuple[str, str]
    answers: Answers


def task(folder: Path, source: Path, answers: Answers) -> Task:
    """The task, its prompts written to a folder."""
    paths = []
    for name, language, takes in (("map", "French", "text"), ("reduce", "German", "joined")):
        path = folder / f"{answers.name}-{name}.yaml"
        path.write_text(json.dumps(prompt(language, takes, answers.sampling)), encoding="utf-8")
        paths.append(str(path))
    return Task(source, (paths[0], paths[1]), answers)


def job_data(todo: Task, source: Path, output: Path, path: str, **sections: Any) -> dict[str, Any]:
    """A job with one of the prompts. Answers are not tried again and equal ones not folded, so that both ways do the same work."""
    data = chain.job_data(source, output, path, **sections)
    engine = {"args": todo.answers.engine, **({"name": "scripted"} if todo.answers.scripted else {})}
    return {**data, "engine": engine, "answer": LENIENT}


LENIENT = {"allow_truncated": True, "allow_empty": True}


def map_reduce_data(todo: Task, output: Path) -> dict[str, Any]:
    prompts = {"reduce": {"path": todo.paths[1], "answer": LENIENT}}
    program = {"name": "map_reduce", "prompts": prompts, "settings": SETTINGS}
    return job_data(todo, todo.source, output, todo.paths[0], program=program)


# the two ways


class Done(NamedTuple):
    """What a way came to. ``busy`` are the engine's seconds, ``filled`` its share of sequences in use, mean over its steps."""

    records: list[dict[str, Any]]
    answers: list[str]
    runs: list[int]  # requests of each
    busy: float
    filled: float
    tokens: int  # asked and given


class Steps:
    """Makes engines that count, at each step, how many of their sequences are in use."""

    def __init__(self, keeper: EngineKeeper, sequences: int) -> None:
        self._keeper = keeper
        self._sequences = sequences
        self._steps = self._in_use = 0

    @property
    def filled(self) -> float:
        """Share of the sequences in use, mean over the steps."""
        return self._in_use / max(1, self._steps) / self._sequences

    def make(self, *arguments: Any) -> Any:
        engine: Any = self._keeper.make(*arguments)
        inner = engine.stream

        def stream(feed: Feed) -> Iterator[list[Outcome]]:
            for outcomes in inner(feed):
                in_flight = len(feed.in_flight)
                self._steps += in_flight > 0
                self._in_use += min(in_flight, self._sequences)
                yield outcomes

        engine.stream = stream
        return engine


def at_once(todo: Task, folder: Path, keeper: EngineKeeper) -> Done:
    """One run."""
    steps = Steps(keeper, todo.answers.sequences)
    run = _run(map_reduce_data(todo, folder / "out"), steps)
    requests = sum(record["attempts"] for record in run.records)
    answers = [record["output"] or "" for record in run.records]
    return Done(run.records, answers, [requests], run.busy, steps.filled, run.tokens)


def level_by_level(todo: Task, folder: Path, keeper: EngineKeeper, tree: Sequence[Mapping[str, Any]]) -> Done:
    """A run of all chunks, and one of each level: ``tree`` are records of the other way, which say what is put together."""
    steps = Steps(keeper, todo.answers.sequences)
    # by document: the answers that are not put together yet, by the chunks that they are about
    open_: list[dict[tuple[int, int], str]] = [{} for _ in tree]
    chunks = cut(todo.source)
    asked = [(number, (i, i)) for number, texts in enumerate(chunks) for i in range(len(texts))]
    rows = [{"text": text} for texts in chunks for text in texts]
    runs, busy, tokens = [], 0.0, 0
    while asked:
        level = len(runs)
        path = folder / f"level-{level}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        run = _run(job_data(todo, path, folder / f"out-{level}", todo.paths[min(level, 1)]), steps)
        for (document, span), record in zip(asked, run.records, strict=True):
            open_[document][span] = record["output"] or ""
        runs.append(len(asked))
        busy, tokens = busy + run.busy, tokens + run.tokens
        asked, rows = [], []
        for document, record in enumerate(tree):
            for reduction in record["details"]["reductions"]:
                if reduction["level"] == level + 1:
                    first, last = reduction["chunks"]
                    inputs = sorted(span for span in open_[document] if first <= span[0] and span[1] <= last)
                    asked.append((document, (first, last)))
                    rows.append({"joined": "\n\n".join(open_[document].pop(span) for span in inputs)})
    answers = [next(iter(left.values()), "") for left in open_]
    return Done([], answers, runs, busy, steps.filled, tokens)


def cut(source: Path) -> list[list[str]]:
    """Each document's chunks, by the same splitter: what a first run by hand would have to do too."""
    from transformers import AutoTokenizer

    from llmbatch.job.job import DEMO_MODEL
    from llmbatch.programs.chunks import split

    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_MODEL)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    texts = (json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines())
    return [[chunk.text for chunk in split(text, CHUNK, count)] for text in texts]


class Run(NamedTuple):
    """One run's records, the seconds in which its engine had something to do, and the tokens that it was asked and gave."""

    records: list[dict[str, Any]]
    busy: float
    tokens: int


def _run(data: Mapping[str, Any], steps: Steps) -> Run:
    from llmbatch.job.job import job_from
    from llmbatch.runs.session import run_job

    result = run_job(job_from(data), make=steps.make)
    if result.exit_code != 0:
        errors = (
            (result.folder / "errors.jsonl").read_text(encoding="utf-8").splitlines() if result.exit_code == 3 else []
        )
        said = json.loads(errors[0])["error"]["message"] if errors else result.folder
        raise SystemExit(f"a run ended with exit code {result.exit_code}: {said}")
    (session,) = result.report["sessions"]
    records = [json.loads(line) for line in chain._lines(result.folder)]
    tokens = sum(sum(record["usage"][kind] for kind in ("prompt_tokens", "completion_tokens")) for record in records)
    return Run(records, session["seconds"]["running"] * (1 - session["idle_share"]), tokens)


class Turn(NamedTuple):
    """One way, once: how long it took, what came of it, and what share of the processors others had meanwhile."""

    seconds: float
    elsewhere: float
    done: Done

    @property
    def idle(self) -> float:
        """Share of the time in which the engine had nothing to do: before, between and after its runs too."""
        return 1 - self.done.busy / self.seconds


NAMES = ("map_reduce", "level by level")


def speed(todo: Task, folder: Path, rounds: int) -> dict[str, Any]:
    """The two ways in turn; the engine's start and a first try are not counted. Disturbed rounds are run again, a few times."""
    from llmbatch.engines.keeper import EngineKeeper

    kept: list[dict[str, Turn]] = []
    disturbed = 0
    with EngineKeeper() as keeper:
        few = todo._replace(source=write_input(folder / "few.jsonl", 16))
        # these folders stay: the engine's log is in the first one
        tried = at_once(few, chain._fresh(folder / f"{todo.answers.name}-try"), keeper)
        level_by_level(few, chain._fresh(folder / f"{todo.answers.name}-try-levels"), keeper, tried.records)
        # the tree that both go through: it follows from the documents and the settings, so it is the same every time
        records = at_once(todo, chain._fresh(folder / "tree"), keeper).records
        chunks = [len(record["details"]["chunks"]) for record in records]
        if chunks != [len(texts) for texts in cut(todo.source)]:
            raise SystemExit("the two ways do not cut the documents alike, so they cannot be compared")
        while len(kept) < rounds:
            turns = {}
            for name in sorted(NAMES, reverse=bool(len(kept) % 2)):
                tree = records if name == "level by level" else None
                turns[name] = _turn(todo, chain._fresh(folder / name.replace(" ", "-")), keeper, tree)
            elsewhere = max(turn.elsewhere for turn in turns.values())
            said = ", ".join(f"{name} {turn.seconds:.1f} s" for name, turn in turns.items())
            print(f"{todo.answers.name}: {said}; elsewhere {elsewhere:.1%}", flush=True)
            if elsewhere <= machine.ELSEWHERE or disturbed == _AGAIN:
                kept.append(turns)
            else:
                disturbed += 1
    one, other = ([turns[name] for turns in kept] for name in NAMES)
    last = {name: kept[-1][name].done for name in NAMES}
    return {
        "seconds": {name: [turns[name].seconds for turns in kept] for name in NAMES},
        "times_as_fast": median(b.seconds / a.seconds for a, b in zip(one, other, strict=True)),
        "times_as_fast_engine_alone": median(b.done.busy / a.done.busy for a, b in zip(one, other, strict=True)),
        "engine_idle_share": {name: median(turns[name].idle for turns in kept) for name in NAMES},
        "sequences_at_a_time": todo.answers.sequences,
        "sequences_in_use": {name: median(turns[name].done.filled for turns in kept) for name in NAMES},
        "tokens": {name: [turns[name].done.tokens for turns in kept] for name in NAMES},
        "requests_of_each_run": {name: done.runs for name, done in last.items()},
        "chunks_of_a_document": _spread(chunks),
        "tokens_of_an_answer": _spread([n for record in records for n in _answer_tokens(record)]),
        "differing_answers": sum(x != y for x, y in zip(*(last[name].answers for name in NAMES), strict=True)),
        "elsewhere": max(turn.elsewhere for turn in (*one, *other)),
        "disturbed_rounds": disturbed,
    }


def _turn(todo: Task, folder: Path, keeper: EngineKeeper, tree: Sequence[Mapping[str, Any]] | None) -> Turn:
    if not todo.answers.scripted:
        keeper._engine._llm.reset_prefix_cache()  # type: ignore[union-attr]
    machine.settle()
    meter = machine.Meter(os.getpid())
    done = at_once(todo, folder, keeper) if tree is None else level_by_level(todo, folder, keeper, tree)
    use = meter.read()
    return Turn(use.seconds, use.elsewhere, done)


def _answer_tokens(record: Mapping[str, Any]) -> list[int]:
    details = record["details"]
    entries = (*details["chunks"], *details["reductions"])
    return [entry["usage"]["completion_tokens"] for entry in entries if "usage" in entry]


def _spread(numbers: Sequence[int]) -> dict[str, float]:
    ordered = sorted(numbers)
    places = {"least": 0.0, "median": 0.5, "90%": 0.9, "most": 1.0}
    found = {name: float(ordered[round(place * (len(ordered) - 1))]) for name, place in places.items()}
    return {**found, "mean": sum(ordered) / len(ordered)}


# kills


def kill(todo: Task, folder: Path, kills: int) -> dict[str, Any]:
    """A run that is killed so many times, evenly over its answers, and finished, against one that is not."""
    whole = chain._start(map_reduce_data(todo, folder / "whole"), folder / "whole.tally")
    if whole.wait() != 0:
        raise SystemExit(f"the run that nobody kills ended with exit code {whole.returncode}")
    one_pass = chain.Tally(folder / "whole.tally").read()
    data, place = map_reduce_data(todo, folder / "killed"), folder / "killed.tally"
    in_flight = 0
    for number in range(1, kills + 1):
        process, tally = chain._start(data, place), chain.Tally(place)
        while tally.read()["answers"] < one_pass["answers"] * number / (kills + 1) and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        in_flight += tally.read()["in_flight"]
    if chain._start(data, place).wait() != 0:
        raise SystemExit("the run that was killed could not be finished")
    both = chain.Tally(place).read()
    answers = [[chain._answer(line) for line in chain._lines(folder / name)] for name in ("whole", "killed")]
    return {
        "kills": kills,
        "one_pass": {name: one_pass[name] for name in ("answers", "tokens")},
        "in_flight_at_the_kills": in_flight,
        "redone": {name: both[name] - one_pass[name] for name in ("answers", "tokens")},
        "redone_share": (both["tokens"] - one_pass["tokens"]) / one_pass["tokens"],
        "differing_records": sum(a != b for a, b in zip(*answers, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--parts", default="speed,kill", help="which figures")
    parser.add_argument("--answers", default=",".join(ANSWERS), help="how long they come out")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "documents": options.documents}
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory(prefix="map-reduce-") as name:
        folder = Path(name)
        source = write_input(folder / "documents.jsonl", options.documents)
        if "speed" in parts:
            found["speed"] = {
                name: speed(task(folder, source, ANSWERS[name]), folder, options.rounds)
                for name in options.answers.split(",")
            }
        if "kill" in parts:
            found["kill"] = kill(task(folder, source, ANSWERS["even"]), folder, options.kills)
    found["ok"] = all(each["times_as_fast"] >= MUST_REACH for each in found.get("speed", {}).values())
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "machine"}, indent=1))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
