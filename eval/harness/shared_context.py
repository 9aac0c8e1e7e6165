"""Multiple choice over long contexts: prompt tokens computed, against sending each pair of context and choice apart.

    python eval/harness/shared_context.py                     # 500 contexts of 1,000 tokens, 4 choices each, the demo model
    python eval/harness/shared_context.py --contexts 20 --tokens 300

The model is the demo model, or another (--model PATH), such as a random Llama. Contexts are drawn from its own vocabulary, each one
another, so nothing is shared but by the choices of one row. Computed are the prompt tokens that did not come from the prefix cache,
by the engine's own count. Prints a line of JSON; with --write a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import results

from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.model.tokenizer import ChatSettings, load_tokenizer
from llmbatch.runs.session import run_job

CHOICES = 4


def main() -> None:
    options = arguments()
    model = str(DEMO_MODEL) if options.model == "demo" else options.model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", model, options)
        (folder / "prompt.yaml").write_text(
            'name: context\nvariables: {context: {type: string}}\ntext: "{{ context }}"\n'
        )
        before = time.monotonic()
        result = run_job(
            job_from(
                {
                    "model": options.model,
                    "prompt": str(folder / "prompt.yaml"),
                    "input": str(folder / "rows.jsonl"),
                    "output": str(folder / "run"),
                    "engine": {"args": {"enforce_eager": True}},
                    "program": {"name": "score", "settings": {"choices": "choices", "delimiter": " "}},
                }
            )
        )
        seconds = time.monotonic() - before
        records = [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]
    assert all(record["status"] == "ok" for record in records)
    found = figures(result.report, records, seconds)
    print(json.dumps(found))
    if options.write:
        results.write(section(options, found))


def section(options: argparse.Namespace, found: dict[str, Any]) -> str:
    return (
        "## Choices that share a context\n\n"
        f"Made by `python eval/harness/shared_context.py --write`, model {options.model}: {found['contexts']} contexts of about "
        f"{options.tokens:,} tokens, {CHOICES} choices each. Of {found['sent_apart']:,} prompt tokens that the pairs have, "
        f"{found['computed']:,} were computed: {found['share']:.1%}.\n"
    )


def figures(report: object, records: list[dict[str, object]], seconds: float) -> dict[str, Any]:
    """What was computed, by the engine's count, and what pairs sent apart would take: all of their tokens."""
    tokens = report["tokens"]["total"]  # type: ignore[index]
    apart = tokens["prompt_tokens"]
    computed = apart - tokens["cached_tokens"]
    return {
        "contexts": len(records),
        "tokens_of_a_pair": round(apart / len(records) / CHOICES, 1),
        "sent_apart": apart,
        "computed": computed,
        "share": round(computed / apart, 4),
        "seconds": round(seconds, 1),
    }


def write_rows(path: Path, model: str, options: argparse.Namespace) -> None:
    """Contexts of about so many tokens, of words of the model's own vocabulary."""
    tokenizer = load_tokenizer(model, ChatSettings()).hf
    words = sorted({text for token in range(len(tokenizer)) if (text := tokenizer.decode([token]).strip()).isalpha()})
    rng = random.Random(options.seed)
    with path.open("w", encoding="utf-8") as rows:
        for at in range(options.contexts):
            drawn: list[str] = []
            count = 0
            while count < options.tokens:
                drawn += rng.choices(words, k=max(1, (options.tokens - count) // 2))
                count = len(tokenizer(" ".join(drawn))["input_ids"])
            choices = [" ".join(rng.choices(words, k=rng.randrange(1, 6))) for _ in range(CHOICES)]
            rows.write(
                json.dumps({"id": at, "context": " ".join(drawn), "choices": choices}, ensure_ascii=False) + "\n"
            )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="demo", help="a model's folder or name, or demo")
    parser.add_argument("--contexts", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=1000, help="of each context, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="a section of RESULTS.md beside this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
