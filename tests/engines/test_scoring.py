"""The way of a likelihood through pieces, against an engine that takes from its cache what it likes. No vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Completion, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.vllm import score
from llmbatch.engines.vllm.score import Limits, Piece, Scoring

BLOCK = 8


def logprob(row: int) -> float:
    return -1.0 - row / 7


def output(scoring: Scoring, piece: Piece, cached: int) -> Any:
    """As vLLM answers: the rows of what it took from its cache are garbage."""
    ids = scoring.ids
    rows = [
        {ids[row]: SimpleNamespace(logprob=logprob(row) if row > cached else 1e9, rank=1 + row % 2)}
        for row in range(piece.end)
    ]
    logprobs, said = None, 0
    if piece.following:
        said = ids[piece.end]
        logprobs = [{said: SimpleNamespace(logprob=logprob(piece.end))}]
    answer = SimpleNamespace(token_ids=[said], logprobs=logprobs)
    return SimpleNamespace(num_cached_tokens=cached, prompt_logprobs=rows if piece.scored else None, outputs=[answer])


def run(context: int, target: int, limits: Limits, cached: Any) -> tuple[Completion, list[Piece]]:
    request = Request(
        RequestKey(0),
        Prompt(),
        Sampling(),
        token_ids=range(context),
        target="t",
        target_ids=range(context, context + target),
    )
    scoring, pieces, done = Scoring(request, limits), [], None
    while done is None:
        piece = scoring.piece
        pieces.append(piece)
        assert len(pieces) < 3 * (context + target) + 10
        assert piece.end < limits.context_length
        most = 0 if limits.block_size is None else (piece.end - 1) // BLOCK * BLOCK
        done = scoring.take(piece, output(scoring, piece, min(most, cached() * BLOCK)))
    return done, pieces


@given(
    context=st.integers(1, 60),
    target=st.integers(1, 60),
    extra=st.integers(0, 3),
    cache=st.booleans(),
    data=st.data(),
)
def test_every_token_of_the_target_counts_once_whatever_came_from_the_cache(
    context: int, target: int, extra: int, cache: bool, data: st.DataObject
) -> None:
    limits = Limits(10**9, context + target + extra, BLOCK if cache else None)
    done, _ = run(context, target, limits, lambda: data.draw(st.integers(0, 15)))
    assert done.score is not None
    assert done.score.logprob == pytest.approx(sum(logprob(row) for row in range(context, context + target)))
    assert done.score.tokens == target
    assert done.usage.prompt_tokens == context + target


def test_one_prompt_is_enough_where_it_is_short_or_there_is_no_cache_to_read_from() -> None:
    _, pieces = run(30, 20, Limits(32_000, 4096, BLOCK), lambda: 3)
    assert pieces == [Piece(50, scored=True)]
    _, pieces = run(3000, 20, Limits(10**9, 4096, None), lambda: 0)
    assert pieces == [Piece(3020, scored=True)]


def test_the_rows_of_one_step_are_bounded_by_the_memory_of_their_logits() -> None:
    _, pieces = run(1000, 150, Limits(10**9, 4096, BLOCK), lambda: 1000 // BLOCK - 1)
    assert pieces == [Piece(1000, False), Piece(1064, True), Piece(1128, True), Piece(1150, True)]
    assert Limits(128_000, 1, None).rows * 128_000 * 4 <= score._LOGITS_BYTES
