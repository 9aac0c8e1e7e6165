"""Likelihoods of given continuations on the real engine, against the model's own logits."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from llmbatch.core.types import Completion, FailureKind, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.model.tokenizer import ChatSettings

pytestmark = pytest.mark.vllm

CONTEXT = 256
ARGS = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 27,
    "max_num_seqs": 16,
    "dtype": "float32",
    "max_model_len": CONTEXT,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    log = tmp_path_factory.mktemp("score") / "engine.log"
    made = VllmEngine(str(DEMO_MODEL), EngineSettings(args=ARGS, in_process=True), ChatSettings(), log)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(DEMO_MODEL), dtype=torch.float32).eval()


def ids_of(seed: int, count: int) -> list[int]:
    import random

    return [random.Random(f"{seed} {i}").randrange(5, 400) for i in range(count)]


def scored(engine: VllmEngine, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Any]:
    feed = Feed()
    feed.push(
        Request(
            RequestKey(i), Prompt(), Sampling(), token_ids=array("I", context), target="given", target_ids=tuple(target)
        )
        for i, (context, target) in enumerate(pairs)
    )
    feed.close()
    found: dict[int, Any] = {}
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            found[outcome.key.index] = outcome
    return [found[i] for i in range(len(pairs))]


def expected(model: Any, context: Sequence[int], target: Sequence[int]) -> tuple[float, bool]:
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*context, *target]])).logits[0, len(context) - 1 : -1]
    logprobs = torch.log_softmax(logits, -1)
    total = sum(float(logprobs[i, token]) for i, token in enumerate(target))
    return total, bool((logits.argmax(-1) == torch.tensor(target)).all())


def agree(engine: VllmEngine, model: Any, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Completion]:
    outcomes = scored(engine, pairs)
    for (context, target), outcome in zip(pairs, outcomes, strict=True):
        assert isinstance(outcome, Completion), outcome
        assert outcome.score is not None
        logprob, greedy = expected(model, context, target)
        assert outcome.score.logprob == pytest.approx(logprob, rel=1e-4, abs=1e-3)
        assert (outcome.score.greedy, outcome.score.tokens) == (greedy, len(target))
        assert outcome.usage.prompt_tokens == len(context) + len(target)
    return outcomes


def test_likelihoods_are_those_of_the_models_own_logits_and_a_shared_prompt_is_computed_once(
    engine: VllmEngine, model: Any
) -> None:
    block = engine_block(engine)
    shared = ids_of(1, 3 * block + 5)
    beginning = ids_of(2, 2 * block)  # two continuations that are the same over whole blocks
    targets = [ids_of(3, 1), ids_of(4, 4), [*beginning, *ids_of(5, 3)], [*beginning, *ids_of(6, 3)], beginning]
    greedy = greedy_after(model, shared, 3)
    outcomes = agree(
        engine, model, [(shared, target) for target in [*targets, greedy]] + [(ids_of(7, 1), ids_of(8, 9))]
    )
    assert outcomes[5].score is not None and outcomes[5].score.greedy
    assert outcomes[1].usage.cached_tokens == 3 * block


def test_choices_of_one_token_are_asked_for_as_the_next_token_of_their_shared_prompt(
    engine: VllmEngine, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = engine_block(engine)
    shared = ids_of(30, 3 * block + 1)
    assert engine._loop is not None
    asked: list[tuple[int, Any, list[int]]] = []
    real = engine._loop._engine.add_request

    def add(*args: Any, **rest: Any) -> Any:
        params = args[2]
        asked.append((len(args[1]["prompt_token_ids"]), params.prompt_logprobs, params.logprob_token_ids))
        return real(*args, **rest)

    monkeypatch.setattr(engine._loop._engine, "add_request", add)
    outcomes = agree(engine, model, [(shared, [token]) for token in (7, 8, 9, 10)])
    assert asked == [(len(shared), None, [token]) for token in (7, 8, 9, 10)]
    # the prompt is computed once but for what is left of its last block, and the target is never sent
    assert [outcome.usage.cached_tokens for outcome in outcomes[1:]] == [3 * block + 1] * 3


def engine_block(engine: VllmEngine) -> int:
    assert engine._loop is not None
    block = engine._loop._tools.limits.block_size
    assert block is not None
    return block


def greedy_after(model: Any, context: Sequence[int], count: int) -> list[int]:
    import torch

    ids = list(context)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(context) :]


def test_a_target_may_fill_the_context_and_one_token_more_is_refused(engine: VllmEngine, model: Any) -> None:
    context = ids_of(9, CONTEXT - 3)
    agree(
        engine,
        model,
        [(context, ids_of(10, 3)), (ids_of(11, CONTEXT - 1), ids_of(12, 1)), (ids_of(13, 1), ids_of(14, CONTEXT - 1))],
    )
    (refused,) = scored(engine, [(context, ids_of(10, 4))])
    assert isinstance(refused, Refusal) and refused.failure.kind is FailureKind.TOO_LONG
    empty, nothing = scored(engine, [((), (7,)), ((7,), ())])
    assert "prompt of at least one token" in empty.failure.message
    assert "continuation of at least one token" in nothing.failure.message


def test_with_a_large_vocabulary_a_long_prompt_is_computed_first_and_a_long_target_in_pieces(
    engine: VllmEngine, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.vllm.score._LOGITS_BYTES", 1)  # then a piece has 64 rows
    assert engine._loop is not None
    asked: list[int] = []
    real = engine._loop._engine.add_request
    monkeypatch.setattr(
        engine._loop._engine,
        "add_request",
        lambda *a, **k: (asked.append(len(a[1]["prompt_token_ids"])), real(*a, **k))[1],
    )
    agree(engine, model, [(ids_of(20, 100), ids_of(21, 150))])
    assert asked == [100, 164, 228, 250]


def test_a_program_chooses_by_likelihood_in_a_whole_run(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (jobs.path / "chooser.py").write_text(
        "from dataclasses import replace\n\n\ndef choose(row):\n    ask = row.ask()\n"
        "    scores = yield [replace(ask, target=target) for target in ('six cent un', 'neuf cent deux')]\n"
        "    return [score.value.logprob for score in scores]\n"
    )
    data = jobs.data(
        jobs.rows([{"text": "six hundred and one", "language": "French"}]),
        model="demo",
        prompt=str(DEMO_MODEL.parent / "prompts" / "translate-number.yaml"),
        engine={"name": "vllm", "args": {**ARGS, "max_model_len": 512}},
        program={"name": "chooser:choose"},
    )
    jobs.run(job_from(data))
    right, wrong = jobs.records()[0]["output"]
    assert right > -1 > wrong
