"""Requests that the context does not hold, made to fit with the demo model's own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from llmbatch.core.types import Cursor, Request, Row
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.job.prepare import Preparer
from llmbatch.job.recipe import Recipe
from llmbatch.model.tokenizer import ChatSettings, Tokenizer, load_tokenizer
from llmbatch.programs.work import Work

CONTEXT, ANSWER = 300, 60
DEAREST = 40  # tokens of the longest character below
ATOMS = [
    "word ",
    "Number 12. ",
    "\n\n",
    "\r\n",
    "漢字",
    "é",
    "e\u0301",
    "👩‍👩‍👧‍👦",
    "🇩🇪",
    "\u200b",
    "    ",
    "<|im_end|>",
    "x" * 30,
]
texts = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=12).map(lambda atoms: "".join(atoms) * 60)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(DEMO_MODEL), ChatSettings())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("overflow") / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


def asked(rows: Path, tokenizer: Tokenizer, text: str, **plan: Any) -> tuple[Work, list[Request]]:
    """A row's work, and its requests that fit; all that does not fit at first is made to."""
    job = job_from(
        {
            "model": "demo", "prompt": "Say: {{ text }} Thank you.", "input": str(rows), "output": "out",
            "sampling": {"max_tokens": ANSWER}, "plan": plan,
        }
    )  # fmt: skip
    prepare = Preparer(Recipe(job), job.plan, tokenizer.encode, lambda: CONTEXT)
    work = prepare.begin(Row(0, "r", {"text": text}, Cursor(0)))
    ready, refused = prepare.following(work.start(), CONTEXT)
    again = [request for refusal in refused for request in work.feed(refusal)]
    ready_then, refused_then = prepare.following(again, CONTEXT)
    assert refused_then == [], "what was made to fit fits"
    return work, ready + ready_then


@examples(max_examples=60, derandomize=True)
@given(text=texts, mode=st.sampled_from(["truncate-head", "truncate-tail", "truncate-middle"]))
def test_what_is_cut_fits_and_leaves_less_free_than_one_character_takes(
    rows: Path, tokenizer: Tokenizer, text: str, mode: str
) -> None:
    work, requests = asked(rows, tokenizer, text, overflow=mode)
    if work.record is not None:
        assert not text.strip(), "only of a blank text there is no prompt"
        return
    (request,) = requests
    used = len(request.token_ids or ())
    assert used + ANSWER <= CONTEXT
    if work.shortened:
        assert used + ANSWER > CONTEXT - DEAREST
        (said,) = work.shortened
        start, end = said["removed"]
        mark = " [...] " if mode == "truncate-middle" else ""
        content = (request.prompt.messages or ({},))[-1]["content"]
        assert content == f"Say: {text[:start]}{mark}{text[end:]} Thank you."
        assert said["prompt_tokens"] == used


@examples(max_examples=30, derandomize=True)
@given(text=texts, overlap=st.sampled_from([0, 30]))
def test_chunks_fit_and_have_all_of_the_text(rows: Path, tokenizer: Tokenizer, text: str, overlap: int) -> None:
    _, requests = asked(rows, tokenizer, text, overflow="chunk", overflow_overlap=overlap)
    asked_of = [(request.prompt.messages or ({},))[-1]["content"] for request in requests]
    chunks = [content.removeprefix("Say: ").removesuffix(" Thank you.") for content in asked_of]
    assert all(len(request.token_ids or ()) + ANSWER <= CONTEXT for request in requests)
    at = 0
    for chunk in chunks:
        start = text.find(chunk, max(0, at - 2000 if overlap else at))
        assert start >= 0
        assert overlap or not text[at:start].strip(), "only white space is left out"
        at = max(at, start + len(chunk))
    if not overlap:
        assert not text[at:].strip()


def test_where_it_cannot_be_known_what_fits_nothing_is_made_of_it(rows: Path, tokenizer: Tokenizer) -> None:
    job = job_from(
        {
            "model": "demo",
            "prompt": "{{ text }}",
            "input": str(rows),
            "output": "out",
            "plan": {"overflow": "truncate-tail"},
        }
    )
    prepare = Preparer(Recipe(job), job.plan, tokenizer.encode, lambda: None)
    work = prepare.begin(Row(0, "r", {"text": "x" * 100_000}, Cursor(0)))
    (refusal,) = prepare.tokenized(work.start()).refused
    assert work.feed(refusal) == []
    assert work.record is not None and work.record.failure is not None
    assert "plan.overflow=truncate-tail was not tried" in work.record.failure.message
