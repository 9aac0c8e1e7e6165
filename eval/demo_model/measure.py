"""Measure the demo model in vLLM: the shipped model and corpora come in, exact-match figures go out.

    python eval/demo_model/measure.py

Greedy, float32, `LLM.chat`; orders both free and held to the prompt's JSON schema. Besides the shipped corpora it runs
a larger draw of held-out examples, as a few hundred rows tell 98% from 99% only roughly.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from data import DEMO, NUMBERS, ORDERS, Example, messages, number_example, order_example, schema
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams


def corpus(name: str, task: str) -> list[Example]:
    """The good rows of a shipped corpus with their true answers."""
    folder = DEMO / "corpus"
    truth = {}
    for line in (folder / f"{name}.truth.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        truth[answer["id"]] = answer["output"]
    examples: dict[str, Example] = {}
    for raw in (folder / f"{name}.jsonl").read_bytes().split(b"\n"):
        try:
            row = json.loads(raw)
        except ValueError:
            continue
        # A repeated id is one of the lines that are broken on purpose.
        if isinstance(row, dict) and row.get("id") in truth and row["id"] not in examples:
            row_id = row.pop("id")
            examples[row_id] = Example(task, row, truth[row_id], row_id)
    if examples.keys() != truth.keys():
        raise SystemExit(f"{name}.jsonl and its truth do not have the same rows")
    return list(examples.values())


def exact_match(llm: LLM, examples: list[Example], output_schema: dict[str, Any] | None, show: int) -> float:
    """The share of answers equal to the true one to the byte; prints the first `show` that are not."""
    constraint = None
    if output_schema is not None:
        constraint = StructuredOutputsParams(json=output_schema, disable_any_whitespace=True)
    sampling = SamplingParams(temperature=0, max_tokens=128, structured_outputs=constraint)
    chats: list[Any] = [messages(example) for example in examples]
    answers = [output.outputs[0].text for output in llm.chat(chats, sampling, use_tqdm=False)]
    wrong = [pair for pair in zip(examples, answers, strict=True) if pair[0].answer != pair[1]]
    for example, answer in wrong[:show]:
        print(f"  {example.row}\n    said {answer}\n    true {example.answer}")
    return 1 - len(wrong) / len(examples)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--rows", type=int, default=1000, help="held-out examples drawn besides the corpora, each task")
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print of each run")
    options = parser.parse_args()

    rng = random.Random("measure")
    sets = {
        "numbers.jsonl": corpus("numbers", NUMBERS),
        "orders.jsonl": corpus("orders", ORDERS),
        "numbers, drawn": [number_example(rng, held_out=True) for _ in range(options.rows)],
        "orders, drawn": [order_example(rng, held_out=True) for _ in range(options.rows)],
    }
    llm = LLM(
        str(options.model), dtype="float32", enforce_eager=True, max_model_len=1024, max_num_seqs=64, block_size=32
    )
    for name, examples in sets.items():
        output_schema = schema(examples[0].task)
        kinds = {"free": None} if output_schema is None else {"free": None, "with its schema": output_schema}
        for kind, constraint in kinds.items():
            score = exact_match(llm, examples, constraint, options.show)
            print(f"{name}, {kind}: {score:.2%} of {len(examples)}", flush=True)


if __name__ == "__main__":
    main()
