"""Texts that installed packages ship in; the benchmark's shapes of corpus with them out, beside the made ones of ``shapes``.

Passages are of licences and documentation (``texts.passages``), tables are of languages (``texts.languages``). The demo model was
trained on neither, so its answers mean nothing: they are short, greedy, and the same for whoever asks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import bodies
import texts
from bodies import Body

_ASKED = "Say in a few words what this is about."
_QUESTIONS = ("Who wrote it?", "May it be sold?", "What must be kept?", "Which words are new?", "Is it long?", "Why?")
_ANSWER = {"temperature": 0, "max_tokens": 16}
_WORDS = (6, 14)  # of a short row
_LANGUAGE = {
    "type": "object",
    "properties": {
        "script": {"enum": ["Latn", "Cyrl", "Arab", "Deva", "other", None]},
        "other_names": {"type": "integer", "minimum": 0, "maximum": 99},
        "has_family": {"type": "boolean"},
        "letters_of_its_code": {"enum": [2, 3, 4, 5, 6, 7]},
    },
    "required": ["script", "other_names", "has_family", "letters_of_its_code"],
    "additionalProperties": False,
}


def neutral(rows: int) -> list[Body]:
    return [bodies.body(_ASKED, passage, **_ANSWER) for passage in texts.passages(rows, *_WORDS)]


def duplicates(rows: int) -> list[Body]:
    """Every row of 70% of them once; the other 30% repeat some of these."""
    rng = random.Random("duplicates")
    return bodies.shuffled(bodies.with_repeats(neutral(rows - rows * 3 // 10), rows, rng), rng)


def schema(rows: int) -> list[Body]:
    """A row of a table of languages each, to be read into a few fields."""
    settings = {"temperature": 0, "max_tokens": 128, "response_format": bodies.form("language", _LANGUAGE)}
    return [bodies.body("Read the language's row as JSON.", row, **settings) for row in texts.languages(rows)]


def prefixes(rows: int) -> list[Body]:
    """Groups of eight questions about a document of their own; in a random order."""
    rng = random.Random("prefixes")
    documents = list(_documents(max(rows // 8, 1)))
    return bodies.shuffled(
        [bodies.body(documents[i % len(documents)], _question(i // len(documents)), **_ANSWER) for i in range(rows)],
        rng,
    )


def skewed(rows: int) -> list[Body]:
    """The length of each answer is its ``max_tokens``: lognormal, its median 32 tokens."""
    rng = random.Random("skewed")
    passages = texts.passages(rows, *_WORDS)
    return [bodies.body(_ASKED, passage, **bodies.length(rng, median=32, sigma=1.0)) for passage in passages]


def mixed(rows: int) -> list[Body]:
    """Half under a schema and half free text of very different lengths; groups share a document, 30% repeat."""
    rng = random.Random("mixed")
    once = rows - rows * 3 // 10
    groups = max(rows // 8, 2)
    documents, table = list(_documents(groups)), list(texts.languages(once))
    constrained = {"temperature": 0, "max_tokens": 128, "response_format": bodies.form("language", _LANGUAGE)}
    made = []
    for i in range(once):
        document = documents[i % groups]
        if i % groups % 2:
            made.append(bodies.body(document, _question(i), **bodies.length(rng, median=24, sigma=0.9)))
        else:
            made.append(bodies.body(document, table[i], **constrained))
    return bodies.shuffled(bodies.with_repeats(made, rows, rng), rng)


def _question(number: int) -> str:
    return f"{_QUESTIONS[number % len(_QUESTIONS)]} ({number})"


def _documents(count: int) -> Iterator[str]:
    """So many documents of as many tokens as a shared prefix has."""
    return map(
        _document, texts.passages(count, bodies.PREFIX_TOKENS, bodies.PREFIX_TOKENS)
    )  # a word is a token at least


def _document(passage: str) -> str:
    words = iter(passage.split())
    return bodies.grow(" ".join(islice(words, 8)), lambda: f" {next(words)}")
