"""The transformers engine against the library's own ``generate_batch``: tokens and time, for two tokenizer families; JSON out.

    python eval/engines/hf_transformers.py                       # some minutes on two cores
    python eval/engines/hf_transformers.py --rows 40 --rounds 1  # a try

Both get the same token ids, the same cache and the same number of rows at a time, and take turns in one process, so that what else
the machine does meets both. The library keeps its manager from round to round, as the engine does. Greedy answers are compared with
``generate_batch``; seeded ones, which it cannot give by row, with ``generate`` for each prompt by itself.

The file is not called ``transformers.py``: Python would take it for the library, in every script of this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.types import Completion, Prompt, Request, RequestKey, Sampling
from llmbatch.core.versions import versions
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings

HERE = Path(__file__).parent
SIZES = {"page_size": 32, "num_blocks": 1024, "max_batch_tokens": 2048}
AT_ONCE = 64
_UNITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SAMPLED = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
_SEEDED_ROWS = 50


def numbers(count: int) -> list[Prompt]:
    """Chats of about equal length."""
    texts = [f"{_UNITS[i % 9]} hundred and {_TENS[i // 9 % 8]}-{_UNITS[i // 72 % 9]}" for i in range(count)]
    return [
        Prompt(messages=({"role": "system", "content": "Translate to French."}, {"role": "user", "content": text}))
        for text in texts
    ]


def passages(count: int) -> list[Prompt]:
    """Plain texts of 5 to 200 words out of this repository's documents."""
    words = " ".join(path.read_text(encoding="utf-8") for path in sorted(HERE.parents[1].glob("*.md"))).split()
    return [Prompt(text=" ".join(words[37 * i % 4000 :][: 5 + 13 * i % 196])) for i in range(count)]


def answer(engine: Any, prompts: Sequence[Prompt], ids: Sequence[Any], sampling: dict[str, Any]) -> list[list[int]]:
    given = Sampling(tuple(sorted(sampling.items())))
    feed = Feed()
    feed.push(Request(RequestKey(i), p, given, token_ids=ids[i]) for i, p in enumerate(prompts))
    feed.close()
    found: dict[int, list[int]] = {}
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            assert isinstance(outcome, Completion), outcome
            found[outcome.key.index] = list(outcome.token_ids)
    return [found[i] for i in range(len(prompts))]


def timed(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def measure(model: Path, prompts: Sequence[Prompt], *, rounds: int, max_tokens: int) -> dict[str, Any]:
    """One family's figures."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    args = {**SIZES, "device": "cpu", "max_num_seqs": AT_ONCE, "batching": "continuous"}
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(name="transformers", args=args)
        engine = make_engine(str(model), settings, ChatSettings(), Path(folder) / "engine.log")
        began = time.perf_counter()
        engine.start()
        start = time.perf_counter() - began
        ids = engine.tokenize(prompts)
        assert ids is not None
        theirs = AutoModelForCausalLM.from_pretrained(model).eval()
        own = theirs.generation_config
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id or 0,
        )
        same = ContinuousBatchingConfig(**SIZES, max_requests_per_batch=AT_ONCE)

        def library() -> list[list[int]]:
            made = theirs.generate_batch(ids, config, same, persistent_manager=True)
            return [list(output.generated_tokens) for output in made.values()]

        def ours() -> list[list[int]]:
            return answer(engine, prompts, ids, {"temperature": 0.0, "max_tokens": max_tokens})

        seconds: dict[str, list[float]] = {"ours": [], "library": []}
        equal = None
        for number in range(rounds + 1):  # the first warms both up
            first, second = (
                (("ours", ours), ("library", library)) if number % 2 else (("library", library), ("ours", ours))
            )
            found = {}
            for name, work in (first, second):
                took, found[name] = timed(work)
                if number:
                    seconds[name].append(took)
            equal = sum(a == b for a, b in zip(found["ours"], found["library"], strict=True))
        theirs.destroy_cached_continuous_batching_manager()
        seeded = answer(engine, prompts[:_SEEDED_ROWS], ids, {**_SAMPLED, "seed": 17, "max_tokens": max_tokens})
        alone = []
        for each in ids[:_SEEDED_ROWS]:
            torch.manual_seed(17)
            given = torch.tensor([each])
            made = theirs.generate(
                given, attention_mask=torch.ones_like(given), do_sample=True, max_new_tokens=max_tokens, pad_token_id=0,
                **_SAMPLED,
            )  # fmt: skip
            alone.append(made[0, len(each) :].tolist())
        engine.stop()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "rows": len(prompts),
        "equal_greedy": equal,
        "seeded_rows": len(alone),
        "equal_seeded": sum(a == b for a, b in zip(seeded, alone, strict=True)),
        "start_seconds": round(start, 2),
        "seconds": {name: [round(each, 3) for each in values] for name, values in seconds.items()},
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "library_time_over_ours": round(medians["library"] / medians["ours"], 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--output", type=Path, default=HERE / "hf_transformers.json")
    given = parser.parse_args(arguments)
    sys.path.insert(0, str(HERE.parent / "harness"))
    import random_llama

    with tempfile.TemporaryDirectory() as folder:
        families = {
            "bytes (the demo model, chats)": (DEMO_MODEL, numbers(given.rows)),
            "unigram (random weights, texts)": (random_llama.make(Path(folder)), passages(given.rows)),
        }
        figures = {
            name: measure(model, prompts, rounds=given.rounds, max_tokens=given.max_tokens)
            for name, (model, prompts) in families.items()
        }
    found = {
        "versions": versions(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "families": figures,
    }
    given.output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1, ensure_ascii=False))


def report(figures: Mapping[str, Any]) -> list[str]:
    """The figures in words."""
    lines = [
        "## transformers: the library's own `generate_batch`",
        "",
        "| tokenizer | rows | equal, greedy | equal, seeded | seconds, ours | the library's | its time over ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in figures["families"].items():
        seconds = one["median_seconds"]
        cells = [
            name, one["rows"], one["equal_greedy"], f"{one['equal_seeded']} of {one['seeded_rows']}", seconds["ours"],
            seconds["library"], one["library_time_over_ours"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    main()
