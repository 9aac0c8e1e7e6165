"""Seeds in; the corpora of the benchmark out: one shape of corpus each, the same rows for every arm.

Rows are the demo model's own tasks wherever the shape allows it, so that answers are real and can be compared; each shape is there
once more with text that nobody made for a benchmark (``NAME-real``, see ``real``). A shape is read in one of two forms: rows for a
prompt file, or requests in the OpenAI batch format where rows differ in their settings.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import bodies
import real
import texts
import yaml
from bodies import DEMO, PREFIX_TOKENS, Body

HERE = Path(__file__).resolve().parent
ROOT, MODEL = bodies.ROOT, bodies.MODEL

sys.path.append(str(HERE.parent / "demo_model"))
from data import Example, number_example, order_example  # noqa: E402

TRANSLATE, EXTRACT = "translate-number", "extract-order"
ENGINE = {"kv_cache_memory_bytes": 512 << 20}  # for every arm: more than any shape needs that is not about the cache
SMALL_CACHE = {"kv_cache_memory_bytes": 32 << 20}  # 16,384 tokens in 16 bits, half of the 64 prefixes
GROUPS = 64
MADE = "made, of the demo model's own tasks"


class Ask(NamedTuple):
    """One row as a peer's own script would have it: what to send, and how."""

    id: str
    messages: list[dict[str, str]]
    sampling: Mapping[str, Any]  # by the names of SamplingParams; one object where the rows share it
    schema: Mapping[str, Any] | None


@dataclass(frozen=True)
class Shape:
    """``make`` gives lines of the input: rows where there is a ``prompt``, else bodies of requests. ``source`` says whose text."""

    title: str
    must_reach: float  # times as fast as LLM.chat
    rows: int
    make: Callable[[int], list[Body]]
    prompt: str | None = None
    engine: Mapping[str, Any] = field(default_factory=lambda: ENGINE)
    note: str = ""
    source: Callable[[], str] = lambda: MADE


def distinct(draw: Callable[..., Example], rows: int, seed: str) -> list[Body]:
    """So many rows of a task, no two the same."""
    rng, seen = random.Random(seed), dict[str, Body]()
    while len(seen) < rows:
        row = draw(rng, held_out=rng.random() < 0.5).row
        seen.setdefault(json.dumps(row), dict(row))
    return list(seen.values())


def number_row(rng: random.Random) -> Body:
    """A row of the translation task."""
    return dict(number_example(rng, held_out=False).row)


def neutral(rows: int) -> list[Body]:
    return distinct(number_example, rows, "neutral")


def duplicates(rows: int) -> list[Body]:
    """Every row of 70% of them once; the other 30% repeat some of these."""
    rng = random.Random("duplicates")
    return bodies.shuffled(
        bodies.with_repeats(distinct(number_example, rows - rows * 3 // 10, "duplicates"), rows, rng), rng
    )


def schema(rows: int) -> list[Body]:
    return distinct(order_example, rows, "schema")


def prefixes(rows: int) -> list[Body]:
    """Groups of eight with a glossary of their own; in a random order."""
    rng = random.Random("prefixes")
    numbers = distinct(number_example, rows, "prefixes")
    glossaries = [_glossary(rng) for _ in range(max(rows // 8, 1))]
    return bodies.shuffled(
        [
            bodies.body(glossaries[i % len(glossaries)], numbers[i]["text"], temperature=0, max_tokens=16)
            for i in range(rows)
        ],
        rng,
    )


def skewed(rows: int) -> list[Body]:
    """The length of each answer is its ``max_tokens``: lognormal, its median 32 tokens."""
    rng = random.Random("skewed")
    numbers = distinct(number_example, rows, "skewed")
    return [
        bodies.body(f"Translate to {row['language']}.", row["text"], **bodies.length(rng, median=32, sigma=1.0))
        for row in numbers
    ]


def mixed(rows: int) -> list[Body]:
    """Half are extractions under a schema and half free text of very different lengths; groups share a prefix, 30% repeat."""
    rng = random.Random("mixed")
    once = rows - rows * 3 // 10
    orders = distinct(order_example, once, "mixed")
    numbers = distinct(number_example, once, "mixed")
    groups = max(rows // 8, 2)
    systems = [_glossary(rng) if group % 2 else _order_book(rng) for group in range(groups)]
    form = bodies.form("order", prompt_file(EXTRACT)["output"]["schema"])
    made = []
    for i in range(once):
        group = i % groups
        if group % 2:
            made.append(bodies.body(systems[group], numbers[i]["text"], **bodies.length(rng, median=24, sigma=0.9)))
        else:
            settings = {"temperature": 0, "max_tokens": 128, "response_format": form}
            made.append(bodies.body(systems[group], orders[i]["text"], **settings))
    return bodies.shuffled(bodies.with_repeats(made, rows, rng), rng)


SHAPES: dict[str, Shape] = {
    "neutral": Shape("Neutral: short distinct rows", 1.15, 6000, neutral, TRANSLATE),
    "duplicates": Shape("30% duplicates", 1.35, 6000, duplicates, TRANSLATE),
    "schema": Shape("JSON schema on every row", 1.3, 3000, schema, EXTRACT),
    "prefixes": Shape(
        "Shared prefixes beyond the KV cache, shuffled", 2.0, GROUPS * 8, prefixes, engine=SMALL_CACHE,
        note=f"{GROUPS} groups x 8 rows, prefixes of {PREFIX_TOKENS} tokens",
    ),
    "skewed": Shape(
        "Skewed output lengths, few slots", 1.1, 800, skewed, engine={**ENGINE, "max_num_seqs": 16},
        note="lognormal, 16 slots",
    ),
    "mixed": Shape(
        "All at once, as a real corpus has it", 2.5, GROUPS * 8, mixed, engine=SMALL_CACHE,
        note="shared prefixes, duplicates, skewed lengths, a schema on half of the rows",
    ),
}  # fmt: skip
_REAL = {
    "neutral": (real.neutral, texts.of_passages),
    "duplicates": (real.duplicates, texts.of_passages),
    "schema": (real.schema, texts.of_languages),
    "prefixes": (real.prefixes, texts.of_passages),
    "skewed": (real.skewed, texts.of_passages),
    "mixed": (real.mixed, lambda: f"{texts.of_passages()}; {texts.of_languages()}"),
}
SHAPES |= {
    f"{name}-real": replace(
        SHAPES[name], title=f"{SHAPES[name].title}, real text", make=make, prompt=None, source=source
    )
    for name, (make, source) in _REAL.items()
}


def write(name: str, rows: int, folder: Path) -> tuple[Path, Path]:
    """Write a shape's input; returns (what llmbatch and the scripts read, the same as requests for run-batch)."""
    shape = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    made = shape.make(rows)
    requests = folder / f"{name}-{rows}.requests.jsonl"
    lines = [_request(f"{name}-{i:05}", body, shape.prompt) for i, body in enumerate(made)]
    _write_lines(requests, lines)
    if shape.prompt is None:
        return requests, requests
    source = folder / f"{name}-{rows}.jsonl"
    _write_lines(source, [{"id": f"{name}-{i:05}", **body} for i, body in enumerate(made)])
    return source, requests


def read(name: str, path: Path) -> Iterator[Ask]:
    """The rows of an input as a peer reads them; rows with equal settings share them."""
    prompt = SHAPES[name].prompt
    with path.open(encoding="utf-8") as file:
        if prompt is None:
            for line in file:
                request = json.loads(line)
                yield Ask(request["custom_id"], request["body"]["messages"], *_settings(request["body"]))
        else:
            document = prompt_file(prompt)
            output = document.get("output", {}).get("schema")
            for line in file:
                row = json.loads(line)
                yield Ask(row["id"], fill(document["messages"], row), document["sampling"], output)


def fill(messages: Sequence[Mapping[str, str]], row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The chat of one row, as a short script would make it."""
    chat = []
    for message in messages:
        content = message["content"]
        for name, value in row.items():
            content = content.replace("{{ " + name + " }}", value)
        chat.append({"role": message["role"], "content": content})
    return chat


@cache
def prompt_file(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEMO / "prompts" / f"{name}.yaml").read_text(encoding="utf-8"))
    return document


def possible_hit_rate(path: Path, name: str, block: int) -> float:
    """The share of prompt tokens that a prefix cache without limit would spare: whole blocks, never a prompt's last token.

    A prompt that repeats an earlier one counts like any other, so where duplicates are folded it is a bound for the rest too.
    """
    chats = [ask.messages for ask in read(name, path)]
    seen, hits, total = set[tuple[int, ...]](), 0, 0
    for ids in {tuple(ids) for ids in bodies.ids(chats)}:
        blocks = [ids[: end + block] for end in range(0, (len(ids) - 1) // block * block, block)]
        hits += block * sum(prefix in seen for prefix in blocks)
        seen.update(blocks)
        total += len(ids)
    return hits / total


def _glossary(rng: random.Random) -> str:
    language = rng.choice(("French", "German", "Spanish"))
    return bodies.grow(f"Translate to {language}.", lambda: f" {_pair(rng, language)};")


def _pair(rng: random.Random, language: str) -> str:
    while (example := number_example(rng, held_out=False)).row["language"] != language:
        pass
    return f"{example.row['text']} = {example.answer}"


def _order_book(rng: random.Random) -> str:
    return bodies.grow("Extract the order as JSON.", lambda: f" {order_example(rng, held_out=False).row['text']}")


def _request(custom_id: str, body: Body, prompt: str | None) -> Body:
    if prompt is not None:
        document = prompt_file(prompt)
        body = {"model": "demo", "messages": fill(document["messages"], body), **document["sampling"]}
        if output := document.get("output"):
            body["response_format"] = bodies.form("answer", output["schema"])
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


_known: dict[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {}


def _settings(body: Body) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    settings = {k: v for k, v in body.items() if k not in ("model", "messages")}
    key = json.dumps(settings)
    if key not in _known:
        form = settings.pop("response_format", None)
        _known[key] = settings, form["json_schema"]["schema"] if form else None
    return _known[key]


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
