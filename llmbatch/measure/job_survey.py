"""A job in; its survey, read from its whole input with the model's tokenizer, without the model, out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.types import Failure, Request, Row, RowId
from llmbatch.engines.base import EngineInfo
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.measure.speed import Sample
from llmbatch.measure.survey import Survey
from llmbatch.model.memory import GIB, cache_tokens
from llmbatch.model.tokenizer import Tokenizer, load_tokenizer, model_config
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import plan_window
from llmbatch.sources.opening import open_source

DEFAULT_MAX_NUM_SEQS = 256


class Assumptions(NamedTuple):
    """What is assumed of the engine and the answers, since neither is there to be asked."""

    kv_cache_tokens: int | None
    gpu_memory_gib: float | None
    answer_tokens: int | None
    engine: EngineInfo | None = None  # unless it is there after all


def survey_job(
    job: Job, assumed: Assumptions, tell: Callable[[int], None] = lambda _: None, sample: Sample | None = None
) -> tuple[Survey, Tokenizer]:
    """Read and plan all of a job's input, window by window. Raises ``UsageError``, or ``ReadError`` where the input fails.

    What would be sent is offered to ``sample``; ``tell`` is told after each window how many rows were read.
    """

    stages = Recipe(job)
    source = open_source(job.input)
    args = job.engine.args
    tokenizer = load_tokenizer(
        job.model_path,
        job.chat,
        tokenizer=args.get("tokenizer"),
        revision=args.get("revision"),
        trust_remote_code=job.engine.trust_remote_code,
        without_torch=True,
    )
    survey = Survey(_limits(job, tokenizer, assumed))
    for rows in _windows(source.rows(), job.run.window, job.run.window_characters):
        sent = _add_window(survey, job, stages, tokenizer, rows, assumed.answer_tokens)
        if sample is not None:
            sample.offer(sent)
        tell(survey.rows)
    return survey, tokenizer


def _windows(rows: Iterable[Row], size: int, characters: int) -> Iterator[list[Row]]:
    """Rows in windows of at most ``size`` rows, and of about ``characters`` characters of text."""
    window: list[Row] = []
    length = 0
    for row in rows:
        window.append(row)
        length += sum(len(value) for value in row.data.values() if isinstance(value, str)) if row.data else 0
        if len(window) == size or length >= characters:
            yield window
            window, length = [], 0
    if window:
        yield window


def _add_window(
    survey: Survey, job: Job, stages: Recipe, tokenizer: Tokenizer, rows: Sequence[Row], answer_tokens: int | None
) -> Iterator[Request]:
    """Add a window to the survey; returns the requests that it would send."""
    lengths = LengthEstimate()
    if answer_tokens is not None:
        lengths.observe(1, answer_tokens, cut=False)
    asked: list[tuple[Request, RowId]] = []
    for row in rows:
        survey.rows += 1
        rendered = row.failure or stages.render(row)
        if isinstance(rendered, Failure):
            survey.trouble(row.id, rendered)
        else:
            asked.extend((request, row.id) for request in stages.begin(row, rendered).start())
    requests: list[Request] = []
    ids: list[RowId] = []
    encoded = tokenizer.encode([request.prompt for request, _ in asked])
    for (request, row_id), tokens in zip(asked, encoded, strict=True):
        if isinstance(tokens, Failure):
            survey.trouble(row_id, tokens)
        else:
            requests.append(replace(request, token_ids=tokens))
            ids.append(row_id)
    plan = plan_window(requests, survey.limits, job.plan, lengths)
    survey.add(requests, plan, ids)
    return (requests[position] for position in plan.order)


def _limits(job: Job, tokenizer: Tokenizer, assumed: Assumptions) -> Capacity:

    if (info := assumed.engine) is not None:
        return Capacity(
            context_length=info.context_length,
            max_num_seqs=info.max_num_seqs,
            kv_cache_tokens=info.kv_cache_tokens or assumed.kv_cache_tokens,
            block_size=info.block_size,
            max_num_batched_tokens=info.details.get("max_num_batched_tokens"),
        )
    args = job.engine.args
    longest = args.get("max_model_len")
    return Capacity(
        context_length=longest if isinstance(longest, int) and longest > 0 else tokenizer.context_length,
        max_num_seqs=args.get("max_num_seqs") or DEFAULT_MAX_NUM_SEQS,
        kv_cache_tokens=assumed.kv_cache_tokens or _kv_cache_tokens(job, assumed.gpu_memory_gib),
        block_size=args.get("block_size"),
        max_num_batched_tokens=args.get("max_num_batched_tokens"),
    )


def _kv_cache_tokens(job: Job, memory_gib: float | None) -> int | None:
    if memory_gib is None:
        return None

    config, weights = model_config(job.model_path, job.engine.args.get("revision")), _weight_bytes(job)
    tokens = cache_tokens(config, weights, memory_gib) if config is not None and weights is not None else None
    if tokens is None:
        raise JobError(
            f"the KV cache of model {job.model!r} cannot be worked out from its files: give --kv-cache-tokens, as vLLM logs it"
        )
    if tokens <= 0:
        raise JobError(
            f"model {job.model!r} has {(weights or 0) / GIB:.1f} GiB of weights, and {memory_gib:g} GiB of GPU memory leave no "
            f"room for a KV cache: give the memory of all GPUs together, or take a smaller or quantized model"
        )
    return tokens


def _weight_bytes(job: Job) -> int | None:
    """The size of the weights: from their index, or the files of a local model; None where neither is there."""
    if index := _model_file(job, "model.safetensors.index.json"):
        size = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size")
        if isinstance(size, int):
            return size
    folder = Path(job.model_path)
    if folder.is_dir():
        return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(job.model_path, revision=job.engine.args.get("revision"), files_metadata=True)
    except (HfHubHTTPError, OSError):
        return None
    files = info.siblings or []
    return sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")) or None


def _model_file(job: Job, name: str) -> Path | None:
    from transformers.utils import cached_file

    revision = job.engine.args.get("revision")
    found = cached_file(job.model_path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def advice_of(survey: Survey, tokenizer: Tokenizer) -> list[str]:
    """The advice of a survey as sentences."""
    sentences = []
    for advice in survey.advice():
        text = tokenizer.decode([survey.sample_tokens(*advice.example, 12)])[0]
        sentences.append(advice.sentence(" ".join(text.split())[:60]))
    if sentence := survey.window_advice():
        sentences.append(sentence)
    return sentences
