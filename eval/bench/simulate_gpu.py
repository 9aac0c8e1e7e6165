"""A SIMULATION: 5,000 documents x 8 questions at the KV-cache size of an 8B model on an H200 -> hit rates and step counts.

No model runs and no GPU is used. vLLM's real scheduler and KV-cache manager schedule every request (``vllm_scheduler.py``),
so tokens, hits, steps and preemptions are what they would be; a stand-in gives the answers. The hours are a roofline
model (weights and cache read at the memory's bandwidth, or arithmetic at half the peak, whichever is longer), not a
measurement, and only good for comparing orders.

    python eval/bench/simulate_gpu.py [--documents 5000] [--questions 8] [--windows 4096,16384,40000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from vllm_scheduler import Counts, Engine, run

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.model.memory import GIB, cache_bytes_per_token, cache_tokens
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import PlanSettings, plan_window

MODEL = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
WEIGHTS = 15 * GIB  # 8e9 parameters in 16 bits
GPU_GIB = 139.0  # H200
BLOCK = 16
FLOPS_PER_TOKEN = 16e9
PEAK_FLOPS = 0.5 * 989e12
BANDWIDTH = 0.8 * 4.8e12  # bytes a second


@dataclass(frozen=True)
class Corpus:
    """Row = document, then question. Lengths in tokens; answers are known to the stand-in, not to the planner."""

    prompts: list[array[int]]
    answers: list[int]
    group: list[int]  # the document of each row


@dataclass
class Roofline:
    """Adds up a modelled time a step."""

    seconds: float = 0.0

    def __call__(self, prefill: int, decoding: int, context: int) -> None:
        arithmetic = (prefill + decoding) * FLOPS_PER_TOKEN / PEAK_FLOPS
        memory = (WEIGHTS + context * (cache_bytes_per_token(MODEL) or 0)) / BANDWIDTH
        self.seconds += max(arithmetic, memory)


def make_corpus(documents: int, questions: int, seed: int = 1) -> Corpus:
    """A system prompt of 64 tokens, documents of 500 to 1,500, questions of 20 to 40, answers of 16 to 112."""
    random = Random(seed)

    def words(count: int) -> array[int]:
        return array("I", [random.randrange(128_000) for _ in range(count)])

    system = words(64)
    texts = [system + words(random.randint(500, 1500)) for _ in range(documents)]
    rows = [
        (document, texts[document] + words(random.randint(20, 40)))
        for _ in range(questions)
        for document in range(documents)
    ]
    return Corpus([row for _, row in rows], [random.randint(16, 112) for _ in rows], [document for document, _ in rows])


def planned(corpus: Corpus, order: list[int], limits: Capacity, window: int) -> list[int]:
    """The order that llmbatch sends the rows in, planned window by window."""
    sampling = Sampling((("max_tokens", 256),))
    sent: list[int] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        requests = [Request(RequestKey(row), Prompt(text=""), sampling, token_ids=corpus.prompts[row]) for row in rows]
        plan = plan_window(requests, limits, PlanSettings(), LengthEstimate(), last=start + window >= len(order))
        sent.extend(rows[position] for position in plan.order)
    return sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--windows", default="4096,16384,40000")
    parser.add_argument("--orders", help="which of the input's orders, with commas between; by default all three")
    parser.add_argument("--max-num-seqs", type=int, default=1024)
    parser.add_argument("--max-num-batched-tokens", type=int, default=16384)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    tokens = cache_tokens(MODEL, WEIGHTS, GPU_GIB) or 0
    engine = Engine(tokens // BLOCK, BLOCK, options.max_num_seqs, options.max_num_batched_tokens)
    limits = Capacity(engine.context_length, engine.max_num_seqs, tokens, BLOCK, engine.max_num_batched_tokens)
    corpus = make_corpus(options.documents, options.questions)
    count = len(corpus.prompts)
    by_question = list(range(count))
    shuffled = Random(2).sample(by_question, count)
    by_document = sorted(by_question, key=lambda row: corpus.group[row])
    orders = {"question by question": by_question, "shuffled": shuffled, "document by document": by_document}
    if options.orders:
        orders = {name: orders[name] for name in options.orders.split(",")}

    print("SIMULATION: vLLM's real scheduler and KV-cache manager, no model; hours by a roofline model.")
    print(f"{options.documents:,} documents x {options.questions} questions, KV cache of {tokens:,} tokens\n")
    print("| input order | sent in | hit rate | prompt tokens computed | steps | preemptions | modelled hours |")
    print("|---|---|---:|---:|---:|---:|---:|")
    results = []
    for name, order in orders.items():
        arms = {"the given order": order}
        if name != "document by document":
            arms |= {
                f"llmbatch, window {w:,}": planned(corpus, order, limits, w)
                for w in map(int, options.windows.split(","))
            }
        for arm, sent in arms.items():
            roofline = Roofline()
            counts = run([corpus.prompts[row] for row in sent], [corpus.answers[row] for row in sent], engine, roofline)
            print(_line(name, arm, counts, roofline.seconds), flush=True)
            results.append({"input": name, "sent": arm, **asdict(counts), "modelled_seconds": roofline.seconds})
    if options.json:
        options.json.write_text(json.dumps({"simulation": True, "kv_cache_tokens": tokens, "arms": results}, indent=1))


def _line(name: str, arm: str, counts: Counts, seconds: float) -> str:
    computed = counts.prompt_tokens - counts.hit_tokens
    return (
        f"| {name} | {arm} | {counts.hit_rate:.1%} | {computed:,} | {counts.steps:,} | {counts.preemptions:,} "
        f"| {seconds / 3600:.2f} |"
    )


if __name__ == "__main__":
    main()
