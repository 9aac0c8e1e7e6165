"""Write the demo corpora: nothing comes in but a fixed seed, `llmbatch/demo/corpus/*.jsonl` goes out.

    python eval/demo_model/corpus.py

Every row is on the held-out side of the split in `data.py`. Some lines are broken on purpose and some rows say what
an earlier row says, as real corpora have both; `*.truth.jsonl` has the right answer of every good row.
"""

import json
import random
from collections.abc import Callable
from typing import Any

from data import DEMO, NUMBERS, Example, is_held_out, number_example, number_is_held_out, order_example

SEED = 20
DUPLICATES = 15
# Several times the model's context of 4096 tokens.
TOO_LONG = "nine thousand nine hundred ninety-nine " * 1000

Row = dict[str, Any]
Draw = Callable[..., Example]


def line(row: object) -> bytes:
    """One JSON line, without its line end."""
    return json.dumps(row, ensure_ascii=False).encode()


def good_rows(rng: random.Random, draw: Draw, count: int) -> list[Example]:
    """`count` held-out examples, the last `DUPLICATES` of them equal to earlier ones, shuffled."""
    seen: dict[str, Example] = {}
    while len(seen) < count - DUPLICATES:
        example = draw(rng, held_out=True)
        held_out = number_is_held_out(int(example.key)) if example.task == NUMBERS else is_held_out(example.key)
        assert held_out, example
        seen.setdefault(json.dumps(example.row), example)
    examples = list(seen.values())
    examples += rng.sample(examples, DUPLICATES)
    rng.shuffle(examples)
    return examples


def write(name: str, draw: Draw, count: int, broken: dict[str, Callable[[Row], bytes]]) -> None:
    """Write one corpus of `count` lines and its truth; each of `broken` makes one line of an honest row."""
    rng = random.Random(f"{name} {SEED}")
    examples = good_rows(rng, draw, count - len(broken))
    # Never the first line: a source that guesses the format from it should see a good one.
    spoil = dict(zip(rng.sample(range(1, count), len(broken)), broken.values(), strict=True))
    lines, truth = [], []
    for place in range(count):
        row_id = f"{name}-{place + 1:04}"
        example = draw(rng, held_out=True) if place in spoil else examples.pop()
        row = {"id": row_id, **example.row}
        if place in spoil:
            lines.append(spoil[place](row))
        else:
            lines.append(line(row))
            truth.append(line({"id": row_id, "output": example.answer}))
    folder = DEMO / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_bytes(b"".join(one + b"\n" for one in lines))
    (folder / f"{name}.truth.jsonl").write_bytes(b"".join(one + b"\n" for one in truth))


BROKEN_NUMBERS: dict[str, Callable[[Row], bytes]] = {
    "not JSON": lambda row: line(row)[:-12],
    "an array": lambda row: line(list(row.values())),
    "not UTF-8": lambda row: json.dumps({**row, "text": "zéro"}, ensure_ascii=False).encode("latin-1"),
    "no text": lambda row: line({"id": row["id"], "language": row["language"]}),
    "text is a number": lambda row: line({**row, "text": 4711}),
    "text too long": lambda row: line({**row, "text": TOO_LONG.strip()}),
    "the id of the first row": lambda row: line({**row, "id": "numbers-0001"}),
    "empty text": lambda row: line({**row, "text": ""}),
}
BROKEN_ORDERS: dict[str, Callable[[Row], bytes]] = {
    "not JSON": lambda row: line(row)[:-3],
    "an array": lambda row: line(list(row.values())),
    "no text": lambda row: line({"id": row["id"], "body": row["text"]}),
    "the id of the first row": lambda row: line({**row, "id": "orders-0001"}),
}


if __name__ == "__main__":
    write("numbers", number_example, 300, BROKEN_NUMBERS)
    write("orders", order_example, 200, BROKEN_ORDERS)
