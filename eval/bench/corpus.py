"""Corpora larger than a window, whose rows share documents and are shuffled: what an order of all of their rows saves, and costs.

    corpus.py hits [--rows 200000] [--groups 25000]     SIMULATION: vLLM's real scheduler and KV-cache manager, no model
    corpus.py real [--rows 20000] [--groups 2500]       vLLM with the demo model and a small KV cache, for real
    corpus.py scale [--rows 1000000]                    the scripted engine, which answers at once: seconds and memory

What is found is printed, and kept in ``corpus.json`` (``--json``) beside what is there. Texts are what installed packages ship
(``texts.py``); a row is a document and a question about it.

``hits`` makes the order with the pass that a run makes, reads windows by it, plans them as a run does, and schedules every request
at the KV cache of an 8B model on an H200. ``possible`` is what a cache without limit would spare in any order, ``one window`` (up
to ``--one-window`` rows, as it holds all prompts) what the planner reaches where it sees the whole corpus at once.
``real`` takes turns between the arms, A B A B, with one engine; ``scale`` runs each arm in a process of its own and adds up the
memory of all of its processes (``PSS``: pages that are shared count once).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import machine
import psutil
import shapes
import texts

HERE = Path(__file__).resolve().parent
PROMPT = "{{ document }}\n\nQuestion: {{ question }}"
QUESTIONS = (
    "What is this about?",
    "Who wrote it?",
    "May it be sold?",
    "What must be kept?",
    "Which words are new?",
    "Is it long?",
)
_SAMPLE_SECONDS = 0.5


def corpus_file(rows: int, groups: int, folder: Path, shortest: int, longest: int) -> Path:
    """So many rows about so many documents, shuffled."""
    path = folder / f"corpus-{rows}-{groups}-{longest}.jsonl"
    if not path.exists():
        documents = list(texts.passages(groups, shortest, longest))
        draw = Random(2)
        with path.with_suffix(".tmp").open("w", encoding="utf-8") as file:
            for row in draw.sample(range(rows), rows):
                question = f"{QUESTIONS[row // groups % len(QUESTIONS)]} ({row // groups})"
                body = {"id": f"row-{row}", "document": documents[row % groups], "question": question}
                file.write(json.dumps(body, ensure_ascii=False) + "\n")
        path.with_suffix(".tmp").rename(path)
    return path


def job_of(source: Path, output: Path, order: str, window: int = 16_384, **sections: Any) -> Any:
    from llmbatch.job.job import job_from

    return job_from(
        {
            "model": "demo",
            "prompt": {"path": PROMPT},
            "input": {"path": str(source)},
            "output": str(output),
            "sampling": {"temperature": 0, "max_tokens": 16},
            "retry": {"max_attempts": 1},  # an answer that is cut off is asked for once: both orders do the same work
            "run": {"order": order, "window": window},
            **sections,
        }
    )


# SIMULATION: hits


def hits(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What each order spares, of what is possible."""
    from simulate_gpu import BLOCK, GPU_GIB, MODEL, WEIGHTS
    from vllm_scheduler import Engine

    from llmbatch.model.memory import cache_tokens
    from llmbatch.model.tokenizer import ChatSettings, load_tokenizer

    source = corpus_file(options.rows, options.groups, folder, options.shortest, options.longest)
    tokens = cache_tokens(MODEL, WEIGHTS, GPU_GIB) or 0
    engine = Engine(tokens // BLOCK, BLOCK, 1024, 16_384)
    encode = load_tokenizer(str(shapes.MODEL), ChatSettings()).encode
    found: dict[str, Any] = {"rows": options.rows, "groups": options.groups, "kv_cache_tokens": tokens, "arms": {}}
    found |= _possible(source, folder, encode, BLOCK)
    print(f"SIMULATION. possible: {found['possible']:.2%} of {found['prompt_tokens']:,} prompt tokens", flush=True)
    arms = {"as they stand": None, "windows": options.window, "corpus": options.window, "one window": options.rows}
    for arm, window in arms.items():
        if (options.arms and arm not in options.arms.split(",")) or (
            arm == "one window" and options.rows > options.one_window
        ):
            continue
        found["arms"][arm] = _scheduled(source, folder, encode, engine, arm, window)
        share = found["arms"][arm]["hit_rate"] / found["possible"]
        found["arms"][arm]["of_possible"] = share
        print(f"{arm}: {found['arms'][arm]['hit_rate']:.2%}, {share:.1%} of what is possible", flush=True)
    return found


def _requests(source: Path, output: Path, arm: str, encode: Any) -> Iterator[tuple[Any, int]]:
    """The rows' requests with token ids, in the order in which a run reads them, and so many tokens of answer each."""
    from llmbatch.core.types import Failure, Prompt, Request, RequestKey, Sampling
    from llmbatch.folder.ordered import Ordered
    from llmbatch.job.swept import recipe_of
    from llmbatch.runs.order_making import make_order
    from llmbatch.sources.opening import open_source

    job = job_of(source, output, "corpus" if arm == "corpus" else "window")
    recipe, rows = recipe_of(job), open_source(job.input)
    if arm == "corpus":
        rows = Ordered(rows, make_order(job, output, rows, recipe, {}, 1 << 20))
    sampling = Sampling((("max_tokens", 16),))
    stream = iter(rows.rows())
    while some := list(islice(stream, 1024)):
        prompts: list[Any] = [recipe.render(row) for row in some]
        for row, ids in zip(some, encode([rendered.prompt for rendered in prompts]), strict=True):
            if isinstance(ids, Failure):  # a run gives it a record and asks nothing
                continue
            key = RequestKey(row.index)
            yield Request(key, Prompt(text=""), sampling, token_ids=array("I", ids)), Random(row.index).randint(4, 16)


def _scheduled(source: Path, folder: Path, encode: Any, engine: Any, arm: str, window: int | None) -> dict[str, Any]:
    from vllm_scheduler import run_rows

    output = folder / "order"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    began = time.perf_counter()
    counts = run_rows(_planned(_requests(source, output, arm, encode), engine, window), engine)
    shutil.rmtree(output)
    said = {"hit_rate": counts.hit_rate, "steps": counts.steps, "preemptions": counts.preemptions}
    return {**said, "computed_tokens": counts.computed_tokens, "seconds_of_the_simulation": time.perf_counter() - began}


def _planned(requests: Iterable[tuple[Any, int]], engine: Any, window: int | None) -> Iterator[tuple[Any, int]]:
    """Window by window in the order of their plans; without one as they come."""
    from llmbatch.plan.lengths import LengthEstimate
    from llmbatch.plan.order import Capacity
    from llmbatch.plan.window import PlanSettings, plan_window

    limits = Capacity(
        engine.context_length, engine.max_num_seqs, engine.blocks * engine.block_size, engine.block_size,
        engine.max_num_batched_tokens,
    )  # fmt: skip
    stream = iter(requests)
    if window is None:
        yield from ((request.token_ids, answer) for request, answer in stream)
        return
    ahead = list(islice(stream, window))
    while ahead:
        some, ahead = ahead, list(islice(stream, window))
        plan = plan_window([request for request, _ in some], limits, PlanSettings(), LengthEstimate(), last=not ahead)
        yield from ((some[position][0].token_ids, some[position][1]) for position in plan.order)


def _possible(source: Path, folder: Path, encode: Any, block: int) -> dict[str, Any]:
    """The share of tokens in whole blocks that come again, by a hash of each block with all before it."""
    import numpy as np

    chains, tokens, spareable = array("q"), 0, 0
    for request, _ in _requests(source, folder, "window", encode):
        data, before = request.token_ids.tobytes(), 0
        blocks = (len(request.token_ids) - 1) // block
        for at in range(blocks):
            before = hash((before, data[at * block * 4 : (at + 1) * block * 4]))
            chains.append(before)
        tokens += len(request.token_ids)
        spareable += blocks
    distinct = len(np.unique(np.frombuffer(chains, dtype=np.int64)))
    return {"prompt_tokens": tokens, "possible": (spareable - distinct) * block / tokens}


# for real, with a small cache


def real(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds from file to file on one engine, its prefix cache emptied before each; and what the pass ahead took of them."""
    from llmbatch.engines.keeper import EngineKeeper
    from llmbatch.runs.session import run_job

    source = corpus_file(options.rows, options.groups, folder, options.shortest, options.longest)
    engine = {"args": dict(shapes.SMALL_CACHE)}
    window = options.window
    keeper, runs = EngineKeeper(), dict[str, list[dict[str, Any]]]()
    warm = corpus_file(64, 8, folder, options.shortest, options.longest)
    with contextlib.closing(keeper):
        run_job(job_of(warm, _fresh(folder / "warm"), "window", engine=engine), make=keeper.make)
        for _ in range(options.repetitions):
            for order in ("window", "corpus"):
                keeper._engine._llm.reset_prefix_cache()  # type: ignore[union-attr]
                output, meter = _fresh(folder / order), machine.Meter(psutil.Process().pid)
                report = run_job(job_of(source, output, order, window, engine=engine), make=keeper.make).report
                use = meter.read()
                said = {
                    "seconds": use.seconds,
                    "elsewhere": use.elsewhere,
                    "hit_rate": report["tokens"]["cache_hit_rate"],
                }
                runs.setdefault(order, []).append({**said, **_pass(output)})
                print(f"{order}: {json.dumps(runs[order][-1])}", flush=True)
    answers = [_answers(folder / order / "results.jsonl") for order in ("window", "corpus")]
    equal = sum(one == other for one, other in zip(*answers, strict=True))
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(runs["window"], runs["corpus"], strict=True)]
    shares = [run["pass_seconds"] / run["seconds"] for run in runs["corpus"]]
    print(f"corpus is {median(ratios):.2f} times as fast as windows; the pass takes {median(shares):.1%} of its run")
    return {
        "rows": options.rows, "groups": options.groups, "engine": engine, "runs": runs, "times_as_fast": ratios,
        "pass_share": shares, "equal_answers": equal,
    }  # fmt: skip


def _answers(results: Path) -> Iterator[tuple[Any, ...]]:
    """Of each record all that the model has a part in; what the prefix cache spared is another number by the order."""
    with results.open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            yield record["status"], record["output"], record.get("raw")


# the scripted engine


def scale(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rows a second, the pass, and the peak of memory, for each arm in a process of its own."""
    source = corpus_file(options.rows, options.groups, folder, options.shortest, options.longest)
    found: dict[str, Any] = {"rows": options.rows, "groups": options.groups, "bytes": source.stat().st_size, "runs": {}}
    for _ in range(options.repetitions):
        for order in (options.arms or "window,corpus").split(","):
            said = _in_a_process(source, _fresh(folder / f"scale-{order}"), order, options.window)
            found["runs"].setdefault(order, []).append(said)
            print(f"{order}: {json.dumps({k: v for k, v in said.items() if k != 'mib'})}", flush=True)
            shutil.rmtree(folder / f"scale-{order}")
    return found


def _in_a_process(source: Path, output: Path, order: str, window: int) -> dict[str, Any]:
    meter = machine.Meter()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), "one", str(source), str(output), order, str(window)],
        stdout=subprocess.PIPE,
        text=True,
    )
    samples, began = list[tuple[float, float]](), time.perf_counter()
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            samples.append((time.perf_counter() - began, sum(map(_pss, (watched, *watched.children(recursive=True))))))
        time.sleep(_SAMPLE_SECONDS)
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"the run ended with exit code {process.returncode}: {out}")
    said = {**json.loads(out.splitlines()[-1]), "elsewhere_and_here": meter.read().elsewhere}
    return {
        **said,
        **_pass(output),
        "peak_mib": max(mib for _, mib in samples),
        "mib": samples[:: max(1, len(samples) // 100)],
    }


def _pss(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error, OSError):
        return float(process.memory_full_info().pss) / 2**20
    return 0.0


def one(source: str, output: str, order: str, window: str) -> None:
    """One run on the scripted engine; says how long it took, and of the processors, with all processes that it started."""
    from llmbatch.runs.session import run_job

    began = time.perf_counter()
    result = run_job(job_of(Path(source), Path(output), order, int(window), engine={"name": "scripted"}))
    seconds = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(each.ru_utime + each.ru_stime for each in used)
    rows = result.report["rows"]["total"]
    print(json.dumps({"rows": rows, "seconds": seconds, "processor_seconds": processor, "outcome": result.outcome}))


def _pass(output: Path) -> Mapping[str, Any]:
    """What is known of the pass ahead, where there was one."""
    path = output / "order" / "order.json"
    if not path.exists():
        return {"pass_seconds": 0.0}
    facts = json.loads(path.read_bytes())["facts"]
    return {"pass_seconds": facts["read_seconds"] + facts["sort_seconds"], "pass": facts}


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


PARTS = {
    "hits": (hits, 200_000, 25_000, 16_384),
    "real": (real, 20_000, 2_500, 2_048),
    "scale": (scale, 1_000_000, 125_000, 16_384),
}
"""By name: what measures it, rows, groups, and rows of a window, which for a small corpus is as small."""


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--groups", type=int)
    parser.add_argument("--window", type=int, help="rows of a window")
    parser.add_argument("--shortest", type=int, default=40, help="words of a document")
    parser.add_argument("--longest", type=int, default=120)
    parser.add_argument("--arms", help="which, with commas between; by default all")
    parser.add_argument("--one-window", type=int, default=250_000, help="so many rows are planned in one window too")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "corpus", help="corpora are kept there")
    parser.add_argument("--json", type=Path, default=HERE / "corpus.json")
    options = parser.parse_args()
    part, rows, groups, window = PARTS[options.part]
    options.window = options.window or window
    options.rows, options.groups = (
        options.rows or rows,
        options.groups or (groups if options.rows is None else options.rows // 8),
    )
    options.work.mkdir(parents=True, exist_ok=True)
    found = part(options, options.work)
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    known["machine"], known["texts"] = machine.describe(), f"{len(texts.packages())} installed packages"
    known[f"{options.part} {options.rows}"] = {
        **found,
        "window": options.window,
        "words_of_a_document": [options.shortest, options.longest],
    }
    options.json.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
