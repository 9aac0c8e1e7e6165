from __future__ import annotations

import importlib.util
import sys
from array import array
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.plan.prefix import PrefixTree, build_tree
from llmbatch.plan.simulate import Cache, Prediction, simulate, steps_to_answer


def tree_of(prompts: list[list[int]], block: int) -> PrefixTree:
    return build_tree([array("I", p).tobytes() for p in prompts], [None] * len(prompts), block)


def predict(prompts: list[list[int]], answers: list[int], cache: Cache, order: list[int] | None = None) -> Prediction:
    tree = tree_of(prompts, cache.block_size)
    return simulate(order or range(len(prompts)), tree, [len(p) for p in prompts], answers, cache)


def corpus(groups: int, rows: int, prefix: int, tail: tuple[int, int], seed: int = 0) -> list[list[int]]:
    """Shuffled prompts: each group has a random prefix of its own, each row a random tail."""
    random = Random(seed)
    starts = [[random.randrange(400) for _ in range(prefix)] for _ in range(groups)]
    prompts = [start + [random.randrange(400) for _ in range(random.randint(*tail))] for start in starts * rows]
    random.shuffle(prompts)
    return prompts


def test_requests_of_one_step_share_what_the_first_of_them_computes() -> None:
    prediction = predict([[1] * 9, [1] * 9], [1, 1], Cache(100, 4, 2, 100))
    assert (prediction.hit_tokens, prediction.computed_tokens, prediction.steps) == (8, 10, 1)


def test_the_last_token_is_always_computed() -> None:
    assert predict([[1] * 8, [1] * 8], [1, 1], Cache(100, 4, 2, 100)).hit_tokens == 4


def test_a_prefix_is_lost_when_others_need_its_blocks() -> None:
    prompts = [[1] * 9, [2] * 9, [1] * 9]
    assert predict(prompts, [1] * 3, Cache(3, 4, 1, 100)).hit_tokens == 0
    assert predict(prompts, [1] * 3, Cache(6, 4, 1, 100)).hit_tokens == 8
    assert predict(prompts, [1] * 3, Cache(3, 4, 1, 100), order=[0, 2, 1]).hit_tokens == 8


def test_the_end_of_a_prompt_is_evicted_before_its_start() -> None:
    prompts = [[1] * 9, [2] * 4, [1] * 9]  # 3 blocks, 1 and 3, of 4
    assert predict(prompts, [1] * 3, Cache(3, 4, 1, 100)).hit_tokens == 8
    prompts = [[1] * 9, [2] * 8, [1] * 9]
    assert predict(prompts, [1] * 3, Cache(3, 4, 1, 100)).hit_tokens == 4


def test_a_prefill_beyond_the_budget_takes_several_steps() -> None:
    assert predict([list(range(100))], [1], Cache(100, 4, 2, 10)).steps == 10


def test_slots_bound_what_runs_at_a_time() -> None:
    prompts = [[i] for i in range(10)]
    assert predict(prompts, [7] * 10, Cache(100, 4, 5, 100)).steps == 14


def test_a_cache_too_small_for_all_answers_preempts() -> None:
    prediction = predict([[i] * 4 for i in range(4)], [40] * 4, Cache(20, 4, 4, 100))
    assert prediction.preemptions > 0
    assert prediction.computed_tokens > 16


prompts_strategy = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=25)


@settings(deadline=None)
@given(prompts_strategy, st.integers(1, 30), st.integers(1, 6), st.integers(1, 40), st.data())
def test_every_run_ends_with_every_token_hit_or_computed(
    prompts: list[list[int]], blocks: int, slots: int, budget: int, data: st.DataObject
) -> None:
    answers = data.draw(st.lists(st.integers(1, 30), min_size=len(prompts), max_size=len(prompts)))
    cache = Cache(blocks, 2, slots, budget)
    prediction = predict(prompts, answers, cache)
    total = sum(map(len, prompts))
    assert prediction.computed_tokens + prediction.hit_tokens >= total
    if not prediction.preemptions:
        assert prediction.computed_tokens + prediction.hit_tokens == total
    assert prediction.hit_tokens <= tree_of(prompts, 2).spared_blocks * 2
    assert prediction.steps >= max(answers)


@given(prompts_strategy, st.integers(1, 6))
def test_a_cache_that_holds_all_spares_all_that_is_shared(prompts: list[list[int]], slots: int) -> None:
    assert predict(prompts, [1] * len(prompts), Cache(10_000, 2, slots, 64)).hit_tokens == (
        tree_of(prompts, 2).spared_blocks * 2
    )


def test_longest_first_ends_sooner() -> None:
    assert steps_to_answer([1, 1, 1, 1, 8], 2) == 10
    assert steps_to_answer([8, 1, 1, 1, 1], 2) == 8


@pytest.fixture(scope="module")
def vllm_scheduler() -> ModuleType:
    """The harness of the benchmark: vLLM's real scheduler and KV-cache manager, without a model."""
    pytest.importorskip("vllm")
    path = Path(__file__).resolve().parents[2] / "eval" / "bench" / "vllm_scheduler.py"
    if not path.is_file():  # a source distribution has the tests without eval/
        pytest.skip("eval/ is not part of this distribution")
    spec = importlib.util.spec_from_file_location("vllm_scheduler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vllm_scheduler"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("prompts", "answer", "cache"),
    [
        pytest.param(corpus(64, 8, 512, (8, 40)), (4, 40), Cache(512, 32, 16, 2048), id="prefixes-exceed-the-cache"),
        pytest.param(corpus(64, 8, 512, (8, 40)), (4, 40), Cache(2048, 16, 64, 2048), id="most-prefixes-fit"),
        pytest.param(corpus(100, 4, 100, (8, 400)), (1, 300), Cache(1000, 16, 64, 1024), id="many-preemptions"),
        pytest.param(corpus(1, 300, 100, (8, 100)), (1, 100), Cache(600, 16, 32, 1024), id="one-prefix-for-all"),
    ],
)
def test_the_simulation_counts_what_vllm_s_own_scheduler_does(
    vllm_scheduler: ModuleType,
    prompts: list[list[int]],
    answer: tuple[int, int],
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")  # which the harness would set for all that comes after it
    random = Random(7)
    answers = [random.randint(*answer) for _ in prompts]
    engine = vllm_scheduler.Engine(cache.blocks, cache.block_size, cache.slots, cache.budget)
    given_order = list(range(len(prompts)))
    for order in (given_order, tree_of(prompts, cache.block_size).order(given_order)):
        real = vllm_scheduler.run([prompts[i] for i in order], [answers[i] for i in order], engine)
        ours = predict(prompts, answers, cache, order)
        assert ours.hit_tokens == pytest.approx(real.hit_tokens, rel=0.02)
        assert ours.steps == pytest.approx(real.steps, rel=0.02)
        assert ours.preemptions == pytest.approx(real.preemptions, rel=0.15)
