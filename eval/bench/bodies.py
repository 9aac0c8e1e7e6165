"""The parts that shapes of corpus are put together from: bodies of requests, lengths of answers, prefixes, repeats, shuffles."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "llmbatch" / "demo"
MODEL = DEMO / "model"
PREFIX_TOKENS = 512

Body = dict[str, Any]


def body(system: str, user: str, **settings: Any) -> Body:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"model": "demo", "messages": messages, **settings}


def form(name: str, schema: Mapping[str, Any]) -> Body:
    """``response_format`` of a request for JSON under a schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def length(rng: random.Random, *, median: int, sigma: float) -> Body:
    """Settings of an answer that is as long as its ``max_tokens``, which are drawn."""
    drawn = round(rng.lognormvariate(math.log(median), sigma))
    return {"temperature": 0, "max_tokens": min(max(drawn, 4), 512), "ignore_eos": True}


def grow(text: str, more: Callable[[], str]) -> str:
    """The text, grown until its message has as many tokens as a prefix is to have."""
    while len(ids([[{"role": "system", "content": text}]])[0]) < PREFIX_TOKENS + 2:  # <|end|><|assistant|>
        text += more()
    return text


def ids(chats: Iterable[Sequence[Mapping[str, str]]]) -> list[list[int]]:
    """The tokens of each chat with the demo model's template."""
    from tokenizers import Tokenizer

    texts = ["".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in chat) + "<|assistant|>" for chat in chats]
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def with_repeats(rows: list[Body], count: int, rng: random.Random) -> list[Body]:
    """So many rows: these, and some of them again."""
    return rows + rng.choices(rows, k=count - len(rows))


def shuffled(rows: list[Body], rng: random.Random) -> list[Body]:
    return rng.sample(rows, len(rows))
