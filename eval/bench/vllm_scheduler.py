"""Prompts in an order -> what vLLM's own scheduler and KV-cache manager do with them, without a model or a GPU.

The scheduler is the real one (``vllm.v1.core.sched.scheduler``), built as the engine core builds it; only the model
runner is a stand-in, which answers each request with as many tokens as it is told. So hits, steps and preemptions are
exact for this vLLM, while time is not measured at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

MODEL = Path(__file__).resolve().parents[2] / "llmbatch" / "demo" / "model"


@dataclass(frozen=True)
class Engine:
    """The limits of the engine that is simulated; lengths in tokens."""

    blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    context_length: int = 32768


@dataclass(frozen=True)
class Counts:
    """What the scheduler did. ``computed_tokens`` counts every scheduled token, of prompts and of answers."""

    prompt_tokens: int
    hit_tokens: int
    computed_tokens: int
    steps: int
    preemptions: int

    @property
    def hit_rate(self) -> float:
        return self.hit_tokens / self.prompt_tokens


OnStep = Callable[[int, int, int], None]
"""(tokens of prompts computed in this step, requests that decode, tokens in their contexts)"""


def run(
    prompts: Sequence[Sequence[int]], answers: Sequence[int], engine: Engine, on_step: OnStep | None = None
) -> Counts:
    """Send the prompts in the order given, twice ``max_num_seqs`` of them ahead, until the last answer has ended."""
    return run_rows(zip(prompts, answers, strict=True), engine, on_step)


def run_rows(given: Iterable[tuple[Sequence[int], int]], engine: Engine, on_step: OnStep | None = None) -> Counts:
    """The same of prompts with the lengths of their answers, of which no more are held than are in flight."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

    scheduler = _scheduler(engine)
    hash_fn = get_hash_fn_by_name(scheduler.cache_config.prefix_caching_hash_algo)
    init_none_hash(hash_fn)
    hasher = get_request_block_hasher(engine.block_size, hash_fn)
    rows = enumerate(given)
    tokens = 0

    def fill() -> None:
        nonlocal tokens
        for number, (prompt, answer) in islice(rows, 2 * engine.max_num_seqs - len(scheduler.requests)):
            params = SamplingParams(max_tokens=answer, temperature=0.0)
            params.update_from_generation_config({}, None)
            request = Request(
                str(number), list(prompt), params, pooling_params=None, arrival_time=0.0, block_hasher=hasher
            )
            scheduler.add_request(request)
            tokens += len(prompt)

    seen: set[str] = set()  # requests that were scheduled before
    hits = steps = computed = preemptions = 0
    while True:
        fill()
        if not scheduler.has_unfinished_requests():
            break
        output = scheduler.schedule()
        steps += 1
        computed += output.total_num_scheduled_tokens
        preemptions += len(output.preempted_req_ids or ())
        for new in output.scheduled_new_reqs:
            if new.req_id not in seen:  # one that was preempted is new again
                seen.add(new.req_id)
                hits += new.num_computed_tokens
        names = list(output.num_scheduled_tokens)
        sampled = []
        prefill = decoding = context = 0
        for name in names:
            request = scheduler.requests[name]
            done = request.num_computed_tokens >= request.num_tokens
            # A token that no prompt has, and a different one for each answer, so that answers share nothing.
            sampled.append([10_000_000 + int(name)] if done else [])
            scheduled = output.num_scheduled_tokens[name]
            if request.num_computed_tokens > request.num_prompt_tokens:
                decoding += 1
                context += request.num_computed_tokens
            else:
                prefill += scheduled
        if on_step:
            on_step(prefill, decoding, context)
        scheduler.update_from_output(
            output, ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, sampled_token_ids=sampled)
        )
    return Counts(tokens, hits, computed, steps, preemptions)


def _scheduler(engine: Engine) -> Any:
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config = EngineArgs(
        model=str(MODEL),
        hf_overrides={"max_position_embeddings": engine.context_length},
        max_model_len=engine.context_length,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        enable_prefix_caching=True,
        async_scheduling=False,
        disable_log_stats=True,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = engine.blocks + 1  # one block is vLLM's null block
    spec = FullAttentionSpec(block_size=engine.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(engine.blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=engine.block_size,
        log_stats=False,
    )
