"""A job in; its survey, read from its whole input with the model's tokenizer, without the model, out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.types import Failure, Refusal, Request, RequestKey, Row, RowId
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.kinds import ModelFacts, kind_of
from llmbatch.job.job import Job
from llmbatch.job.prepare import Preparer, capacity_of
from llmbatch.job.recipe import engine_of
from llmbatch.job.swept import recipe_of
from llmbatch.measure.speed import Sample
from llmbatch.measure.survey import Survey
from llmbatch.model.characters import Characters
from llmbatch.model.memory import GIB, cache_tokens
from llmbatch.model.tokenizer import Tokenizer, load_tokenizer, model_config
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import WindowPlan
from llmbatch.programs.work import Work
from llmbatch.sources.opening import open_source
from llmbatch.sources.shard import rows_in


class Assumptions(NamedTuple):
    """What is assumed of the engine and the answers, since neither is there to be asked."""

    kv_cache_tokens: int | None
    gpu_memory_gib: float | None
    answer_tokens: int | None
    engine: EngineInfo | None = None  # unless it is there after all


def survey_job(
    job: Job, assumed: Assumptions, tell: Callable[[int], None] = lambda _: None, sample: Sample | None = None
) -> tuple[Survey, Tokenizer | Characters]:
    """Read and plan all of a job's input, window by window. Raises ``UsageError``, or ``ReadError`` where the input fails.

    Of an input without an end as many rows are read as are to be accepted.
    What would be sent is offered to ``sample``; ``tell`` is told after each window how many rows were read.
    """
    source = open_source(job.input)
    recipe = recipe_of(job)
    engine_of(job, recipe)  # what is wrong with the model's kind is said here too
    tokenizer = _tokenizer(job)
    survey = Survey(_limits(job, tokenizer, assumed), not_counted=recipe.later)
    prepare = Preparer(
        recipe,
        job.plan,
        tokenizer.encode,
        lambda: survey.limits.context_length,
        answer_tokens=assumed.answer_tokens,
    )
    most = job.accept.rows if job.input.endless and job.accept is not None else None
    rows = islice(rows_in(source.rows(), job.input.slice), most)
    while (sent := _add_window(survey, prepare, job, rows)) is not None:
        if sample is not None:
            sample.offer(sent)
        tell(survey.rows)
    return survey, tokenizer


def _tokenizer(job: Job) -> Tokenizer | Characters:
    """The model's tokenizer; where nobody has it and the engine does without, what stands in for it."""
    where = kind_of(job.engine.name).tokenizer(job.engine)
    may_be_hosted = not where.needed and where.name is None
    if may_be_hosted and "/" not in job.model_path:  # a server's own name for it
        return Characters()
    try:
        return load_tokenizer(
            job.model_path,
            job.chat,
            tokenizer=where.name,
            revision=where.revision,
            trust_remote_code=job.engine.trust_remote_code,
            without_torch=True,
        )
    except JobError:
        if may_be_hosted:
            return Characters()
        raise


def _add_window(survey: Survey, prepare: Preparer, job: Job, rows: Iterator[Row]) -> Iterator[Request] | None:
    """Add the next window to the survey; returns the requests that it would send, None where there is no row any more."""
    room = prepare.room(job.run)
    asked: list[Request] = []
    ids: dict[int, RowId] = {}
    works: dict[int, Work] = {}
    characters = 0
    for row in rows:
        survey.rows += 1
        ids[row.index] = row.id
        work = works[row.index] = prepare.begin(row)
        requests = work.start()
        if work.record is not None and work.record.failure is not None:
            survey.trouble(row.id, work.record.failure)
        asked += requests
        characters += prepare.size(row, work, requests)
        if room.is_full(len(ids), len(asked), characters):
            break
    if not ids:
        return None
    made_to_fit: Counter[int] = Counter()  # row index -> requests in place of those that do not fit
    ready, plan = _planned(survey, prepare, works, asked, made_to_fit)
    if job.plan.overflow not in ("error", "skip"):
        for index, count in made_to_fit.items():
            if count and works[index].record is None:
                survey.made_to_fit(count, works[index].shortened)
    survey.add(ready, plan, [ids[request.key.index] for request in ready])
    return (ready[position] for position in plan.order)


def _planned(
    survey: Survey,
    prepare: Preparer,
    works: Mapping[int, Work],
    asked: Sequence[Request],
    made_to_fit: Counter[int],
) -> tuple[list[Request], WindowPlan]:
    """The requests with their tokens, and their plan; in place of those that do not fit what the job then asks, if anything.

    ``made_to_fit`` is where these are counted.
    """
    ends: dict[RequestKey, Failure] = {}  # of requests that do not fit, where nothing is asked in their place

    def refused(request: RequestKey, failure: Failure) -> list[Request]:
        work = works[request.index]
        following = [] if work.record is not None else work.feed(Refusal(request, failure))
        made_to_fit[request.index] += len(following)
        if not following:
            ends[request] = work.record.failure if work.record is not None and work.record.failure else failure
        return following

    while True:
        ready, without_tokens = prepare.tokenized(asked)
        plan = prepare.plan(ready, survey.limits)
        following: list[Request] = []
        for refusal in without_tokens:
            following += refused(refusal.key, refusal.failure)
            if refusal.key in ends:
                survey.trouble(works[refusal.key.index].row.id, ends[refusal.key])
        for position, failure in plan.too_long.items():
            if ready[position].key not in ends:
                following += refused(ready[position].key, failure)
        if not following:
            break
        kept = [r for position, r in enumerate(ready) if position not in plan.too_long or r.key in ends]
        asked = [*kept, *following]
    too_long = {position: ends[ready[position].key] for position in plan.too_long}
    return ready, replace(plan, too_long=too_long)


def _limits(job: Job, tokenizer: Tokenizer | Characters, assumed: Assumptions) -> Capacity:
    facts = ModelFacts(job.model_path, tokenizer.context_length)
    capacity = capacity_of(assumed.engine or kind_of(job.engine.name).limits(job.engine, facts))
    known = capacity.kv_cache_tokens or assumed.kv_cache_tokens
    if known is None and assumed.engine is None:
        known = _kv_cache_tokens(job, assumed.gpu_memory_gib)
    return replace(capacity, kv_cache_tokens=known)


def _kv_cache_tokens(job: Job, memory_gib: float | None) -> int | None:
    if memory_gib is None:
        return None

    config, weights = model_config(job.model_path, _revision(job)), _weight_bytes(job)
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
        info = HfApi().model_info(job.model_path, revision=_revision(job), files_metadata=True)
    except (HfHubHTTPError, OSError):
        return None
    files = info.siblings or []
    return sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")) or None


def _model_file(job: Job, name: str) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(job.model_path, name, revision=_revision(job), _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def _revision(job: Job) -> str | None:
    return kind_of(job.engine.name).tokenizer(job.engine).revision


def advice_of(survey: Survey, tokenizer: Tokenizer | Characters) -> list[str]:
    """The advice of a survey as sentences."""
    sentences = []
    for advice in survey.advice():
        text = tokenizer.decode([survey.sample_tokens(*advice.example, 12)])[0]
        sentences.append(advice.sentence(" ".join(text.split())[:60]))
    if sentence := survey.window_advice():
        sentences.append(sentence)
    return sentences
