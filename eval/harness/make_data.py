"""A fixed seed in; the data of the tasks, ``tasks/*.jsonl``, out: numbers in English and French, none trained on.

python eval/harness/make_data.py
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_model"))

from data import english, french, number_is_held_out

SEED = 11
ROWS = 400
SHOTS = 100
CHOICES = 4
TEXTS = 45
LONG_TEXTS = 3
TASKS = Path(__file__).parent / "tasks"


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (TASKS / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def row(rng: random.Random, number: int) -> dict[str, Any]:
    """A number, its French words, and these among the words of numbers that look like it."""
    near = {number // 10 * 10 + digit for digit in range(10)} | {number % 1000 + 1000 * digit for digit in range(10)}
    words = [french(number), *(french(other) for other in rng.sample(sorted(near - {number}), CHOICES - 1))]
    answer = words[0]
    rng.shuffle(words)
    return {"text": english(number), "french": answer, "choices": words, "answer": words.index(answer)}


def text(rng: random.Random, sentences: int) -> str:
    """Sentences of numbers."""
    return " ".join(
        f"{english(rng.randrange(10_000)).capitalize()} is not {english(rng.randrange(10_000))}."
        for _ in range(sentences)
    )


if __name__ == "__main__":
    rng = random.Random(SEED)
    held_out = [number for number in range(10_000) if number_is_held_out(number)]
    trained = [number for number in range(21, 10_000) if not number_is_held_out(number)]
    write("numbers", [row(rng, number) for number in rng.sample(held_out, ROWS)])
    write("shots", [row(rng, number) for number in rng.sample(trained, SHOTS)])
    # those of 200 sentences are longer than the demo model's context of 4,096 tokens
    lengths = [*(rng.choice((5, 15, 40)) for _ in range(TEXTS)), *[200] * LONG_TEXTS]
    write("texts", [{"text": text(rng, sentences)} for sentences in rng.sample(lengths, len(lengths))])
